"""Adapts chat templates to any log: they read no clock, and they write every turn.

Templates of models that also read pictures expect contents as lists of parts, and get such lists.

The changes are written in front of the template itself, so every program that reads the saved
model, such as the server of a version, writes the same tokens.
"""

import logging
from datetime import date, datetime

from transformers import PreTrainedTokenizerBase

from rpo_pipeline.errors import ModelError

logger = logging.getLogger(__name__)

STANDARD_DATE = date(2025, 1, 1)
"""Date for models without a date of their own, so that they write the same tokens every day."""
_CLOCK = "strftime_now"
_FOLDED = "{# rpo_pipeline: a system message goes into the user turn behind it #}"
# Lines end with a tag, after which Jinja drops the line break, so they write nothing.
_FOLD = (
    _FOLDED
    + """{% set rpo = namespace(turns=[], system='') %}
{% for message in messages %}
{% set last = rpo.turns[-1]['role'] if rpo.turns else none %}
{% if message['role'] == 'system' %}
{% set rpo.system = rpo.system + message['content'] + '\\n\\n' %}
{% elif message['role'] == last %}
{% set whole = rpo.turns[-1]['content'] + '\\n\\n' + rpo.system + message['content'] %}
{% set rpo.turns = rpo.turns[:-1] + [{'role': last, 'content': whole}] %}
{% set rpo.system = '' %}
{% elif message['role'] == 'user' %}
{% set rpo.turns = rpo.turns + [{'role': 'user', 'content': rpo.system + message['content']}] %}
{% set rpo.system = '' %}
{% else %}
{% set rpo.turns = rpo.turns + [message] %}
{% endif %}
{% endfor %}
{% if rpo.system %}
{% set rpo.turns = rpo.turns + [{'role': 'user', 'content': rpo.system}] %}
{% endif %}
{% set messages = rpo.turns %}
"""
)
_PARTS = """{# rpo_pipeline: contents become lists of parts #}
{% set rpo_parts = namespace(turns=[]) %}
{% for message in messages %}
{% if message['content'] is string %}
{% set parts = [{'type': 'text', 'text': message['content']}] %}
{% set rpo_parts.turns = rpo_parts.turns + [dict(message, content=parts)] %}
{% else %}
{% set rpo_parts.turns = rpo_parts.turns + [message] %}
{% endif %}
{% endfor %}
{% set messages = rpo_parts.turns %}
"""
_RAW_PART = "'type': 'text'"
"""Text in the output of a template that prints a list of parts unchanged."""
_SYSTEM = {"role": "system", "content": "words of a system"}
_USER = {"role": "user", "content": "words of a user"}
_ANSWER = {"role": "assistant", "content": "words of an answer"}


def adapt_template(tokenizer: PreTrainedTokenizerBase, day: date = STANDARD_DATE) -> None:
    """Make a chat template write the same tokens every day, and move the messages that it refuses.

    A system message, or a second turn of the same role, that the template refuses or leaves out is
    moved into the user turn. A template that reads contents as lists of parts gets such lists. If
    the template asks for today's date, it writes ``day``. An adapted template stays as it is; one
    that leaves out a user's message is a ModelError.
    """
    template = tokenizer.chat_template
    if not template:
        return
    if not isinstance(template, str):  # several by name, of which prompts meet the default
        template = template.get("default") or next(iter(template.values()))
    if _CLOCK in template and "macro " + _CLOCK not in template:
        logger.info("the chat template writes a date: it is %s for this model from now on", day)
        template = _clock(day) + template
    template = tokenizer.chat_template = _with_contents(tokenizer, template)
    chats = ([_SYSTEM, _USER], [_USER, _USER | {"content": "more words"}])
    if _writes(tokenizer, [_USER]) and not all(_writes(tokenizer, chat) for chat in chats):
        tokenizer.chat_template = _FOLD + template
        if not all(_writes(tokenizer, chat) for chat in chats):
            tokenizer.chat_template = template


def folds_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether system messages are written into the next user turn."""
    return _FOLDED in str(tokenizer.chat_template or "")


def writes_role(tokenizer: PreTrainedTokenizerBase, role: str) -> bool:
    """Tell whether a chat template writes the messages of a role."""
    turn = {"role": role, "content": f"words of a {role}"}
    return _writes(tokenizer, [_USER, _ANSWER, turn])


def warn_of_opening(tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if a chat template opens a new answer in another way than it writes an earlier one.

    Templates of thinking models open a thought, or leave earlier thoughts out.
    """
    if not tokenizer.chat_template:
        return
    answer = _ANSWER["content"]
    asked = str(tokenizer.apply_chat_template([_USER], tokenize=False, add_generation_prompt=True))
    chat = [_USER, _ANSWER]
    there = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition(answer)[0]
    if asked != there:
        openings = (text.rpartition(_USER["content"])[2] for text in (asked, there))
        logger.warning(
            "the chat template opens an answer that it asks for with %r, and writes one that is "
            "there behind %r: responses of the log are scored behind the first, as the model "
            "writes its own, so a log without thoughts teaches to answer without them",
            *openings,
        )


def _with_contents(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Return a template that writes a user's text, from contents that are texts or parts."""
    tokenizer.chat_template = template
    if _writes(tokenizer, [_USER]):
        return template
    words = _write(tokenizer, [_USER])
    tokenizer.chat_template = _PARTS + template
    if _writes(tokenizer, [_USER]) and _writes(tokenizer, [_USER, _ANSWER]):
        logger.info("the chat template reads contents as lists of parts: it gets them so")
        return _PARTS + template
    if words is not None:
        raise ModelError(
            f"the chat template of {str(tokenizer.name_or_path)!r} leaves out what a user says: it "
            f"writes {_USER['content']!r} as {words[:200]!r}, so every prompt would be read as "
            "the same; mend chat_template.jinja (or chat_template in tokenizer_config.json) in "
            "the folder of the model, or name another model"
        )
    return template  # a prompt that it refuses raises an error later


def _writes(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]]) -> bool:
    text = _write(tokenizer, chat)
    if text is None or _RAW_PART in text:
        return False
    return all(message["content"] in text for message in chat)


def _write(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]]) -> str | None:
    """Return the text that a template makes of a chat; None if it refuses it by any error."""
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except Exception:
        return None


def _clock(day: date) -> str:
    """Return a clock that stands still, under the name of transformers' own.

    The longer directives come first, ``%-d`` before ``%d``.
    """
    moment = datetime(day.year, day.month, day.day)
    directives = [*"-d -m -H -I -M -S -j -y".split(), *"YmdBbAaHIMSpjyZzfFTDRcxXeuwUWGV"]
    steps = "".join(f" | replace('%{one}', '{moment.strftime('%' + one)}')" for one in directives)
    return f"{{% macro {_CLOCK}(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n"
