"""`bartizan reembed`, before there is anything to swap: `bartizan.toml` stands for the new configuration too."""

from tests.trial.uses import uses

_NOWHERE = "cannot read the configuration nowhere.toml"

USES = [
    *uses(
        "reembed",
        ("reembed", 2, "Usage: bartizan reembed|plan"),
        ("reembed plan", 2, "Missing argument|NEW.toml"),
        *((f"reembed {verb} nowhere.toml", 2, _NOWHERE) for verb in ("plan", "run", "status", "swap", "rollback")),
        ("reembed drop nowhere.toml --yes --force", 2, _NOWHERE),
        ("reembed plan nowhere.toml --json", 2, _NOWHERE),
        *(
            (f"reembed {verb} nowhere.toml --verbose --quiet", 2, "exclude each other")
            for verb in ("plan", "run", "status", "swap", "rollback", "drop")
        ),
        ("reembed run nowhere.toml --follow --json", 2, _NOWHERE),
        ("reembed status nowhere.toml --probe --json", 2, _NOWHERE),
        ("reembed swap nowhere.toml --max-behind 0 --settle 1 --min-agreement 0.5 --json", 2, _NOWHERE),
        ("reembed rollback nowhere.toml --at-once --follow --json", 2, _NOWHERE),
        ("reembed rollback bartizan.toml --config nowhere.toml", 2, _NOWHERE),
        ("reembed plan bartizan.toml --sample 0", 2, "sample"),
        ("reembed plan bartizan.toml --sample many", 2, "must be a whole number, but .many. came"),
        ("reembed run bartizan.toml --from somewhere", 2, "--from takes stored or topic, but 'somewhere' came"),
        ("reembed run bartizan.toml --from topic", 2, "--from topic needs .source. kind = .kafka."),
        ("reembed run bartizan.toml --every 0", 2, "every"),
        ("reembed run bartizan.toml --every soon", 2, "must be a number, but .soon. came"),
        ("reembed run corpus.jsonl", 2, "corpus.jsonl is not valid TOML"),
        ("reembed run {export}", 2, "cannot read the configuration"),
        ("reembed status bartizan.toml --json yes", 2, "yes"),
        ("reembed swap bartizan.toml --force", 2, "force"),
        ("reembed swap bartizan.toml --force everything", 2, "count, heads, recall, ndcg, agreement"),
        ("reembed swap bartizan.toml --judged nowhere", 2, "cannot read the judged set"),
        ("reembed swap bartizan.toml --judged corpus.jsonl", 2, "cannot read the judged set"),
        ("reembed swap bartizan.toml --judged {data} --split dev", 2, "cannot read the judged set.*dev.tsv"),
        ("reembed swap bartizan.toml --config nowhere.toml", 2, _NOWHERE),
        ("reembed swap bartizan.toml --min-recall 2", 2, "min-recall"),
        ("reembed swap bartizan.toml --max-missing -1", 2, "max-missing"),
        ("reembed swap bartizan.toml --ndcg-tolerance much", 2, "must be a number, but .much. came"),
        ("reembed rollback bartizan.toml", 2, "there is nothing to go back to"),
        ("reembed drop bartizan.toml", 2, "there is nothing to drop"),
        ("reembed drop bartizan.toml --yes", 2, "there is nothing to drop"),
        ("reembed undo bartizan.toml", 2, "No such command"),
        (
            "reembed run bartizan.toml",
            2,
            "there is no collection 'news' to re-embed; bartizan ingest makes it",
            {"swap": {'"docs"': '"news"'}, "name": "reembed what is not there"},
        ),
        (
            "reembed run bartizan.toml",
            2,
            "other .collection. fields than 'docs' has",
            {
                "swap": {', { name = "lang", type = "string", default = "en" }': ""},
                "name": "reembed with other fields",
            },
        ),
    ),
]
