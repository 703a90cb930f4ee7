"""Queries to begin with, and the language in a few lines."""

from __future__ import annotations

EXAMPLES = (
    ("loss > p95 sortby loss desc", "the highest losses"),
    ("aum < p5 and split == 'train' sortby aum limit 100", "likely to be mislabelled"),
    ("label != prediction and not discarded sortby confidence", "wrong, the surest first"),
    ("confidence_std > p90 sortby confidence_std desc", "hard: now right, now wrong"),
    ("forgetting >= 2 sortby forgetting desc", "learnt and forgotten again"),
    ("confidence_mean > p80 and forgetting == 0", "easy: the others make them redundant"),
    ("encounters == 0", "never seen so far"),
    ("corrected or discarded", "what people changed"),
    ("loss > mean(loss) + 3 * std(loss)", "outliers"),
    ("split == 'train' sample 50", "fifty at random"),
    ("show confusion", "which class is taken for which"),
    ("show count, accuracy, mean(loss) by label", "a table by class"),
    ("show histogram(loss, 40)", "how losses are spread"),
    ("show count by tag", "how many have which tag"),
)
"""(query, what it finds); each is right for every run."""

RULES = (
    ("and  or  not  ( )", "put conditions together"),
    ("==  !=  <  <=  >  >=", "compare; texts and classes in 'single quotes'"),
    ("between 1 and 2,  in (3, 5),  like 'a%',  is null", "ranges, lists, patterns, no value"),
    ("p95", "a quantile of what it is compared with"),
    ("tag:name", "has the tag"),
    ("sortby loss desc, id", "sorts"),
    ("sample 10%,  limit 100", "some at random; the first ones"),
    ("show ...", "tells about the samples found"),
)
"""(how it is written, what it does)."""
