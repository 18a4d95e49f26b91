"""Where feedback comes from, and what is done with it on the way in."""

import codecs
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator

from rpo_pipeline.params.base import Params

Conflicts = Literal["mean", "latest", "quarantine"]
SourceFormat = Literal[
    "auto",
    "flat",
    "grouped",
    "messages",
    "trl_unpaired",
    "trl_preference",
    "ultrafeedback",
    "openai_chat",
]


WHOLE = re.compile(r"\+?(-?\d+)(?:\.0*)?")
BOOLEANS = {
    True: "true yes on y t 1".split(),
    False: "false no off n f 0".split(),
}
"""Words that a key of ``values`` stands for which YAML took for true or false, as it does with
``yes``, ``no``, ``on`` and ``off`` without quotes."""


def rating_word(value: object) -> str:
    """How a rating is spelled in ``values``: whole numbers without a point, no capitals."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = str(value).strip().casefold()
    whole = WHOLE.fullmatch(word)
    return whole[1] if whole else word


class RatingParams(Params):
    """A column in which people rated responses, and how it maps to raw_reward."""

    column: str
    """Name of the column in the source."""
    scale: tuple[FiniteFloat, FiniteFloat] | None = None
    """Lowest and highest rating, mapped linearly to -1 and 1; null: the number as it is."""
    values: dict[str, FiniteFloat] | None = Field(default=None, min_length=1)
    """Raw reward of each word, such as ``{up: 1, down: -1}``; upper and lower case are one."""

    @field_validator("values", mode="before")
    @classmethod
    def _words(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        if None in values:
            raise ValueError(
                "values: a missing rating has no word; if the log holds the word `null` or `~`, "
                "quote it: {'null': 0}"
            )
        words: dict[str, object] = {}
        for word, number in values.items():
            spelled = rating_word(word)
            if isinstance(word, bool):
                continue
            if words.get(spelled, number) is not number and words[spelled] != number:
                raise ValueError(f"values: {spelled!r} is given twice, with different numbers")
            words[spelled] = number
        meant = {
            word: number
            for key, number in values.items()
            if isinstance(key, bool)
            for word in BOOLEANS[key]
        }
        return meant | words

    @model_validator(mode="after")
    def _one_mapping(self) -> Self:
        if self.scale and self.values:
            raise ValueError(f"rating column {self.column!r}: give `scale` or `values`, not both")
        if self.scale and self.scale[0] >= self.scale[1]:
            raise ValueError(f"rating column {self.column!r}: scale must rise, got {self.scale}")
        return self


DEFAULT_RATINGS: dict[str, tuple[RatingParams, ...]] = {
    "trl_unpaired": (
        RatingParams(
            column="label",
            values=dict.fromkeys(BOOLEANS[True], 1.0) | dict.fromkeys(BOOLEANS[False], -1.0),
        ),
    ),
    "trl_preference": (RatingParams(column="preference"),),
    "ultrafeedback": (
        RatingParams(column="overall_score", scale=(1, 10)),
        RatingParams(column="annotations_mean", scale=(1, 5)),
    ),
    "openai_chat": tuple(RatingParams(column=c) for c in ("reward", "rating", "metadata.rating")),
}
"""Ratings of formats that have their own."""
REWARD = (RatingParams(column="reward"),)
"""Of the others."""


OUR_NAMES = frozenset(
    "prompt response responses completion completions instruction chosen rejected "
    "messages conversations conversation system choices request request.body response.body "
    "reward rewards score scores rating ratings label preference overall_score annotations "
    "timestamp created model model_version behaviour_logps".split()
)
"""Names of fields that some format knows, which ``columns`` may give a source's name to."""
NO_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}
"""Encodings of Python that no text file has."""


class SourceParams(Params):
    """One source of feedback."""

    path: str
    """A file (.jsonl, .json, .csv, .tsv, each also .gz, .bz2, .xz or .zst; .parquet, .arrow), a
    folder of them such as a saved Hugging Face dataset, or a glob, from the project folder or from
    ``~/``; or
    ``hf://OWNER/NAME`` with an optional glob behind it, a dataset of the Hugging Face hub."""
    format: SourceFormat = "auto"
    """Shape of a record; ``auto``: told from the first records of each file."""
    revision: str | None = None
    """Commit of a hub dataset, 40 hexadecimal digits, pinned so that a run can be repeated."""
    encoding: str = "utf-8"
    """Of text files without a byte order mark, which always counts, such as ``cp1252``."""
    columns: dict[str, str] = {}
    """Our name to the source's, where they differ: ``{prompt: question}``, ``{prompt: log.q}``."""
    ratings: list[RatingParams] | None = Field(default=None, min_length=1)
    """Rating columns, the first that holds a value counts; none of them: the row is unrated.
    Null: those of the format."""
    ratings_path: str | None = None
    """Files of ratings that refer to responses of this source and may come later: a path like
    ``path``, not of the hub; there need be none yet. Null: the log holds its own ratings."""
    key: str | None = None
    """Field, in the log and in those files, that names a response: ``response_id``."""
    max_text_characters: int = Field(default=1_000_000, ge=1)
    """Of a prompt or of a response; what is longer goes to quarantine as ``too_long``. Every later
    step costs time and memory by the length of its longest text."""

    @field_validator("encoding")
    @classmethod
    def _of_files(cls, encoding: str) -> str:
        """The name by which Python knows it: ``UTF8`` is ``utf-8``."""
        try:
            "".encode(encoding)
            name = codecs.lookup(encoding).name
        except LookupError:
            name = None
        if name is None or name in NO_FILES:
            raise ValueError(
                f"no encoding {encoding!r} of text files is known; some are utf-8, utf-16, cp1252, "
                "shift_jis"
            )
        return name

    @property
    def rating_columns(self) -> Sequence[RatingParams]:
        """The ratings that count."""
        return self.ratings or DEFAULT_RATINGS.get(self.format, REWARD)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.path.startswith("hf://") != (self.revision is not None):
            raise ValueError(
                f"source {self.path!r}: a hub dataset (hf://OWNER/NAME) needs a revision, and "
                "nothing else has one"
            )
        if self.revision is not None and (
            not re.fullmatch("hf://[^/]+/[^/]+(/.+)?", self.path) or ".." in self.path.split("/")
        ):
            raise ValueError(
                f"source {self.path!r}: a hub dataset is hf://OWNER/NAME[/GLOB], and the glob does "
                "not leave it"
            )
        if self.revision is not None and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"source {self.path!r}: the revision must be a commit of 40 hexadecimal digits, "
                f"which nobody can move, got {self.revision!r}"
            )
        if (self.ratings_path is None) != (self.key is None):
            raise ValueError(
                f"source {self.path!r}: ratings_path and key go together, got "
                f"{self.ratings_path!r} and {self.key!r}"
            )
        if self.ratings_path and self.ratings_path.startswith("hf://"):
            raise ValueError(
                f"source {self.path!r}: ratings_path must be a file, a folder or a glob, got "
                f"{self.ratings_path!r}"
            )
        for path in (self.path, self.ratings_path or ""):
            if "://" in path.removeprefix("hf://"):
                raise ValueError(
                    f"source {path!r} is an address: a source is a file, a folder or a glob of "
                    "this machine, or hf://OWNER/NAME; copy the files here first"
                )
        return self

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        """A misspelt name of ours would leave its field empty in every row."""
        own = {rating.column for rating in self.rating_columns} | {self.key}
        for name in self.columns:
            # Of a preference, `score_chosen` is the column `score` of one side.
            column = re.sub("^(chosen|rejected)[-_. ]|[-_. ](chosen|rejected)$", "", name)
            if {name, column}.isdisjoint(OUR_NAMES | own):
                close = get_close_matches(name, [*OUR_NAMES, *filter(None, own)], n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(
                    f"source {self.path!r}: columns: {name!r} is no name of ours: {hint}"
                    "(`{prompt: question}` is ours: theirs; docs/data.md lists ours)"
                )
        return self


class SplitShares(Params):
    """Share of prompts in each split; together 1."""

    train: float = Field(gt=0, le=1)
    validation: float = Field(ge=0, lt=1)
    test: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"split_shares must sum to 1, got {total:g}")
        return self


class RedactionParams(Params):
    """What is taken out of texts before anything is stored."""

    entities: list[Literal["email", "phone", "card"]] = Field(min_length=1)
    """Kinds that become ``<EMAIL>``, ``<PHONE>`` and ``<CARD>``."""
    regions: list[Annotated[str, Field(pattern="^[A-Z]{2}$")]] = []
    """``phone``: countries (``US``, ``FR``) whose numbers are known without an international
    prefix; numbers with one are always known."""


class NearDuplicateParams(Params):
    """Which prompts are so alike that they must be on one side of the split."""

    threshold: float = Field(ge=0.5, le=1)
    """Smallest share of common three-word runs, 0 to 1; lower puts more prompts together."""


class IngestionParams(Params):
    """Where feedback comes from, and what is done with it on the way in."""

    sources: list[SourceParams] = Field(min_length=1)
    """Every source is read in full."""
    split_shares: SplitShares
    """For prompts seen for the first time; a split once given stays."""
    near_duplicates: NearDuplicateParams | None
    """Prompts that share a split because they nearly share their text; null: each stands alone."""
    conversations_share_split: bool
    """Whether prompts of conversations that begin with the same turn of a user share a split: a
    later turn holds the responses to earlier ones."""
    conflicts: Conflicts
    """A row with different ratings takes their mean, or the latest (by timestamp, then by order of
    reading), or leaves the data for the quarantine."""
    max_quarantine_share: float = Field(ge=0, le=1)
    """A run fails when a larger share of the rows read is quarantined."""
    redaction: RedactionParams | None = None
    """Personal data to take out of prompts, responses and quarantined text; null: nothing."""
