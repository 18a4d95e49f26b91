"""Parameters of ingestion: sources, ratings, splits, redaction."""

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
"""Words that a key true or false of ``values`` may stand for, because YAML reads ``yes``, ``no``,
``on`` and ``off`` without quotes as these."""


def rating_word(value: object) -> str:
    """Write a rating as a key of ``values``: whole numbers without a point, no capitals."""
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
    """Lowest and highest rating, mapped linearly to -1 and 1; null leaves the number as it is."""
    values: dict[str, FiniteFloat] | None = Field(default=None, min_length=1)
    """Raw reward of each word, such as ``{up: 1, down: -1}``, in upper or lower case."""

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
"""Default rating columns of formats that have their own."""
REWARD = (RatingParams(column="reward"),)
"""Default rating columns of all other formats."""


OUR_NAMES = frozenset(
    "prompt response responses completion completions instruction chosen rejected "
    "messages conversations conversation system choices request request.body response.body "
    "reward rewards score scores rating ratings label preference overall_score annotations "
    "timestamp created model model_version behaviour_logps".split()
)
"""Names of fields of any format, which ``columns`` may map to a source's names."""
NO_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"}
"""Encodings of Python that are not meant for text files."""


class SourceParams(Params):
    """One source of feedback."""

    path: str
    """A file (.jsonl, .json, .csv, .tsv, each also .gz, .bz2, .xz or .zst; .parquet, .arrow), a
    folder of them such as a saved Hugging Face dataset, or a glob, from the project folder or from
    ``~/``; or ``hf://OWNER/NAME``, a dataset of the Hugging Face hub, with an optional glob."""
    format: SourceFormat = "auto"
    """Format of the records; ``auto`` detects it from the first records of each file."""
    revision: str | None = None
    """Commit of a hub dataset, 40 hexadecimal digits, pinned so that a run can be repeated."""
    encoding: str = "utf-8"
    """Encoding, such as ``cp1252``, of text files without a byte order mark."""
    columns: dict[str, str] = {}
    """Our names to the source's, if they differ: ``{prompt: question}``, ``{prompt: log.q}``."""
    ratings: list[RatingParams] | None = Field(default=None, min_length=1)
    """Rating columns; the first with a value counts, and a row without one is unrated. Null for
    those of the format."""
    ratings_path: str | None = None
    """Files of ratings of this source's responses that may come later: a path like ``path``, but
    not of the hub, which may match no file yet. Null if the log holds its own ratings."""
    key: str | None = None
    """Field that names a response in the log and in files of ratings: ``response_id``."""
    max_text_characters: int = Field(default=1_000_000, ge=1)
    """Largest length of a prompt or a response; longer ones go to quarantine as ``too_long``. Time
    and memory of every later step grow with the longest text."""

    @field_validator("encoding")
    @classmethod
    def _of_files(cls, encoding: str) -> str:
        """Replace an encoding by Python's name for it, such as ``utf-8`` for ``UTF8``."""
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
        """Rating columns of the source, or those of its format."""
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
        """Refuse unknown names in ``columns``, whose fields would be empty in every row."""
        own = {rating.column for rating in self.rating_columns} | {self.key}
        for name in self.columns:
            # In a preference, `score_chosen` is the column `score` of one side.
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
    """Personal data that is redacted before a text is stored."""

    entities: list[Literal["email", "phone", "card"]] = Field(min_length=1)
    """Kinds that become ``<EMAIL>``, ``<PHONE>`` and ``<CARD>``."""
    regions: list[Annotated[str, Field(pattern="^[A-Z]{2}$")]] = []
    """Countries (``US``, ``FR``) whose phone numbers are found without an international prefix;
    numbers with a prefix are always found."""


class NearDuplicateParams(Params):
    """When prompts are near-duplicates, which share a split."""

    threshold: float = Field(ge=0.5, le=1)
    """Smallest share of common three-word runs, 0 to 1; a lower one finds more near-duplicates."""


class IngestionParams(Params):
    """Where feedback comes from, and how it is checked, split and redacted."""

    sources: list[SourceParams] = Field(min_length=1)
    """Sources, each of which is read in full."""
    split_shares: SplitShares
    """Shares of the splits among new prompts; the split of a known prompt never changes."""
    near_duplicates: NearDuplicateParams | None
    """When prompts are near-duplicates and share a split; null to assign each prompt alone."""
    conversations_share_split: bool
    """Whether prompts of conversations that begin with the same turn of a user share a split,
    because later turns hold the responses to earlier ones."""
    conflicts: Conflicts
    """How different ratings of one row are merged: by their mean, by the latest (by timestamp, then
    by order of reading), or not at all, in which case its records go to quarantine."""
    max_quarantine_share: float = Field(ge=0, le=1)
    """Largest share of the rows read that may be quarantined; above it the run fails."""
    redaction: RedactionParams | None = None
    """Personal data to redact in prompts, responses and quarantined text; null for none."""
