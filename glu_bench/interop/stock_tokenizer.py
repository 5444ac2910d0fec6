"""A tokenizer as the files from which transformers' AutoTokenizer gives the same ids."""

from __future__ import annotations

import json
from typing import Any

from glu_bench.data.tokenizers import END_TOKENS, ByteTokenizer, FileTokenizer, Tokenizer


def make_tokenizer_files(tokenizer: Tokenizer, seq_len: int) -> dict[str, str]:
    """Content of tokenizer.json and tokenizer_config.json."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "clean_up_tokenization_spaces": False,
    }
    end_token: str | None
    if isinstance(tokenizer, ByteTokenizer):
        content, end_token = make_byte_json(), END_TOKENS[0]
        # text that spells the end token is bytes like any other
        settings["split_special_tokens"] = True
    else:
        assert isinstance(tokenizer, FileTokenizer)
        content, end_token = _without_additions(tokenizer), _find_end_token(tokenizer)
    if end_token is not None:
        # training put it between documents, so that it also stands before each
        settings |= {"bos_token": end_token, "eos_token": end_token}
    return {"tokenizer.json": content, "tokenizer_config.json": json.dumps(settings, indent=2) + "\n"}


def make_byte_json() -> str:
    """tokenizer.json of the byte tokenizer: a byte-level BPE without merges, the ids being the bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {character: byte for byte, character in enumerate(_spell_bytes())}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(END_TOKENS[0], special=True, normalized=False)])
    assert inner.token_to_id(END_TOKENS[0]) == ByteTokenizer.end_id
    return str(inner.to_str())


def _spell_bytes() -> list[str]:
    """The character that byte-level tokenizers write for each byte: itself if it can be seen.

    The others follow from U+0100 on, in their order. Source: GPT-2's encoder.
    """
    seen = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    unseen = [byte for byte in range(256) if byte not in seen]
    return [chr(byte if byte in seen else 0x100 + unseen.index(byte)) for byte in range(256)]


def _without_additions(tokenizer: FileTokenizer) -> str:
    """The tokenizer.json, less what would cut, pad or frame a text: training did none of it.

    A file that does nothing of the kind is left byte for byte.
    """
    was = json.loads(tokenizer.content)
    now = {**was, "truncation": None, "padding": None}
    if tokenizer.inner.num_special_tokens_to_add(is_pair=False):
        now["post_processor"] = None
    plain = {"truncation": None, "padding": None, **was} == now
    return tokenizer.content if plain else json.dumps(now, ensure_ascii=False)


def _find_end_token(tokenizer: FileTokenizer) -> str | None:
    """The spelling of the end token, or None where naming it would change ids.

    transformers looks for every special token in a text before anything else; an end token that is
    an ordinary entry of the vocabulary is not looked for by the file itself.
    """
    added = tokenizer.inner.get_added_tokens_decoder().get(tokenizer.end_id)
    return None if added is None else str(added.content)
