"""Texts into words: a query is cut by the analyzer that cut the documents, and never parsed.

So no text can be a syntax error, and none can reach another field.
"""

from collections import Counter

from bartizan_connector.search.words.engine import tantivy

ANALYZER = "english_words"
_LONGEST_WORD = 40
_MAX_QUERY_WORDS = 256
"""Different words of one query that are looked up: far more than a question has, few enough to stay fast."""


def analyzer() -> tantivy.TextAnalyzer:
    """Runs of letters and digits, in lower case, without accents, English endings cut."""
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(tantivy.Filter.remove_long(_LONGEST_WORD))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
        .filter(tantivy.Filter.stemmer("english"))
        .build()
    )


def query_for(text: str, words: tantivy.TextAnalyzer, schema: tantivy.Schema) -> tantivy.Query:
    """Any of the text's words, each as often as it stands there."""
    counts = Counter(words.analyze(clean(text))).most_common(_MAX_QUERY_WORDS)
    terms = [(tantivy.Query.term_query(schema, "words", word, "freq"), count) for word, count in counts]
    return tantivy.Query.boolean_query(
        [(tantivy.Occur.Should, tantivy.Query.boost_query(term, count)) for term, count in terms]
    )


def clean(text: str) -> str:
    """Half a surrogate pair is no word, and no library in Rust takes it."""
    return text.encode(errors="replace").decode()
