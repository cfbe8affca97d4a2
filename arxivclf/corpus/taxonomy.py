"""arXiv's categories: which there are, and which are the same under two names.

Source: the category taxonomy that arXiv publishes, and its list of archives that a category took over. What counts
as positive in a task is said elsewhere, in tasks.
"""

from __future__ import annotations

import difflib

import polars as pl

_BY_ARCHIVE = {
    "astro-ph": "CO EP GA HE IM SR",
    "cond-mat": "dis-nn mes-hall mtrl-sci other quant-gas soft stat-mech str-el supr-con",
    "cs": "AI AR CC CE CG CL CR CV CY DB DC DL DM DS ET FL GL GR GT HC IR IT LG LO MA MM MS NA NE NI OH OS PF PL RO SC"
    " SD SE SI SY",
    "econ": "EM GN TH",
    "eess": "AS IV SP SY",
    "math": "AC AG AP AT CA CO CT CV DG DS FA GM GN GR GT HO IT KT LO MG MP NA NT OA OC PR QA RA RT SG SP ST",
    "nlin": "AO CD CG PS SI",
    "physics": "acc-ph ao-ph app-ph atm-clus atom-ph bio-ph chem-ph class-ph comp-ph data-an ed-ph flu-dyn gen-ph"
    " geo-ph hist-ph ins-det med-ph optics plasm-ph pop-ph soc-ph space-ph",
    "q-bio": "BM CB GN MN NC OT PE QM SC TO",
    "q-fin": "CP EC GN MF PM PR RM ST TR",
    "stat": "AP CO ME ML OT TH",
}

# Archives that are a category themselves. The last three had subcategories added later (astro-ph in 2009, cond-mat in
# 2004, q-bio in 2003), and the papers from before still stand under the bare name.
_WHOLE_ARCHIVES = [
    "gr-qc",
    "hep-ex",
    "hep-lat",
    "hep-ph",
    "hep-th",
    "math-ph",
    "nucl-ex",
    "nucl-th",
    "quant-ph",
    "astro-ph",
    "cond-mat",
    "q-bio",
]

SAME_AS = {
    # Aliases: arXiv lists such a paper under both names.
    "math.MP": "math-ph",
    "stat.TH": "math.ST",
    "math.IT": "cs.IT",
    "q-fin.EC": "econ.GN",
    "cs.SY": "eess.SY",
    "cs.NA": "math.NA",
    # Archives of the 1990s that a category took over.
    "cmp-lg": "cs.CL",
    "adap-org": "nlin.AO",
    "comp-gas": "nlin.CG",
    "chao-dyn": "nlin.CD",
    "solv-int": "nlin.SI",
    "patt-sol": "nlin.PS",
    "alg-geom": "math.AG",
    "dg-ga": "math.DG",
    "funct-an": "math.FA",
    "q-alg": "math.QA",
    "mtrl-th": "cond-mat.mtrl-sci",
    "supr-con": "cond-mat.supr-con",
    "acc-phys": "physics.acc-ph",
    "ao-sci": "physics.ao-ph",
    "atom-ph": "physics.atom-ph",
    "bayes-an": "physics.data-an",
    "chem-ph": "physics.chem-ph",
    "plasm-ph": "physics.plasm-ph",
}
"""The other name of a category -> the name that it counts as."""

CATEGORIES = frozenset(
    [f"{archive}.{part}" for archive, parts in _BY_ARCHIVE.items() for part in parts.split()]
    + _WHOLE_ARCHIVES
    + list(SAME_AS)
)
"""Every name that stands in the categories of some paper."""


def spellings(category: str) -> frozenset[str]:
    """All the names under which papers of `category` stand in a dump, `category` itself included.

    `cs.CL` gives `cs.CL` and `cmp-lg`. `cs.*` stands for every category of an archive, and so does the bare name of one
    that was a category before it had subcategories (`astro-ph`). An unknown name raises KeyError.
    """
    archive = category.removesuffix(".*")
    if archive in _BY_ARCHIVE and (archive != category or category in CATEGORIES):
        members = [f"{archive}.{part}" for part in _BY_ARCHIVE[archive].split()]
        bare = {archive} & CATEGORIES
        return frozenset().union(bare, *(spellings(member) for member in members))
    if category not in CATEGORIES:
        raise KeyError(category)
    preferred = SAME_AS.get(category, category)
    return frozenset([preferred, *(other for other, same in SAME_AS.items() if same == preferred)])


def canonical_categories(categories: pl.Series) -> pl.Series:
    """The categories of papers as lists of names, each once and in order, aliases and subsumed archives resolved.

    `categories` are strings as arXiv writes them, separated by white space; null stays null.
    """
    names = pl.element().replace(SAME_AS)
    listed = pl.col("categories").str.extract_all(r"\S+").list.eval(names).list.unique(maintain_order=True)
    return categories.rename("categories").to_frame().select(listed).to_series()


def primary_archive(categories: pl.Expr) -> pl.Expr:
    """The archive of the first category of each paper, aliases and subsumed archives resolved; null without categories.

    `categories` are strings as arXiv writes them: `math.IT cs.DS` gives `cs`, `hep-th` gives `hep-th`.
    """
    return categories.str.extract(r"(\S+)", 1).replace(SAME_AS).str.extract(r"^([^.]+)", 1)


def nearest(category: str) -> list[str]:
    """Up to three known categories that look most like `category`, the best first; of an archive all of its own."""
    if category in _BY_ARCHIVE:
        return [f"{category}.*"]
    wanted = category.lower()
    by_lower = {known.lower(): known for known in CATEGORIES}
    close = difflib.get_close_matches(wanted, sorted(by_lower), n=len(by_lower), cutoff=0.5)
    # Equally close ones come by what they share at the start: for cs.AJ rather cs.AI than cs.NA.
    likeness = {name: difflib.SequenceMatcher(None, name, wanted).ratio() for name in close}
    close.sort(key=lambda name: (-likeness[name], -_shared_start(name, wanted), name))
    return [by_lower[name] for name in close[:3]]


def _shared_start(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
