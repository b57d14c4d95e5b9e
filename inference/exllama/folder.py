"""A model's folder: what it is, how its texts become ids and back, and which weights it has.

Nothing in it is run: weights are read from safetensors alone, and a folder that has a pickle in their place is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from inference.digests import file_digest
from inference.engine import CONTINUE, LOGPROBS, SCHEMA, SCORE, TOOLS, ModelInfo
from inference.errors import BadSettings, EngineError, ModelMissing
from inference.exllama.reading import Spelling
from inference.exllama.settings import ExLlama

if TYPE_CHECKING:
    from inference.exllama.rules import Vocabulary

_JSON_MAX_BYTES = 4 << 20
_TOKENIZER_MAX_BYTES = 128 << 20
_CONTEXT_IDS = 8  # before an answer: enough to know whether its first token begins a word


class Folder:
    """A model's folder, read."""

    def __init__(
        self,
        model: ModelInfo,
        template: str,
        marks: dict[str, str],
        stop: Sequence[int],
        tokenizer: Any,
        vocabulary: Vocabulary,
        weights: Sequence[Path],
    ) -> None:
        self.model = model
        self.template = template
        self.marks = marks
        """Tokens that templates name: `bos_token`, `eos_token`."""
        self.stop = tuple(stop)
        """Ids that end an answer."""
        self.vocabulary = vocabulary
        self.weights = weights
        """The files that say which model this is; see `weights_digest`."""
        added = tokenizer.get_added_tokens_decoder()
        self._hidden = frozenset(number for number, token in added.items() if token.special)
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """A rendered prompt's ids: marks in it count as such, and none is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def spelling(self, prompt: Sequence[int]) -> Spelling:
        """Of one answer to `prompt`."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(ids=list(prompt[-_CONTEXT_IDS:]), skip_special_tokens=True)
        return Spelling(lambda token: stream.step(self._tokenizer, token) or "", self._alone, self._hidden)

    def _alone(self, token: int) -> str:
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return text


def read_folder(settings: ExLlama) -> Folder:
    """All but the weights, whose digest is not in the model's description. Raises `ModelMissing`, `BadSettings`."""
    folder = Path(settings.folder)
    config = _json(folder / "config.json")
    _check_context(settings, config)
    said = _json(folder / "tokenizer_config.json", optional=True)
    tokenizer = _tokenizer(folder / "tokenizer.json")
    marks = {name: _text(said.get(name)) for name in ("bos_token", "eos_token")}
    weights = [*_safetensors(folder), *(path for one in settings.lora_folders for path in _adapter(Path(one)))]
    model = ModelInfo(
        id=settings.id,
        family=settings.family,
        quantisation=_quantisation(config),
        digest="",
        context=settings.context,
        # A string that is banned is one that a schema, or the name of a tool, may ask for.
        features=(CONTINUE, SCORE, *(() if settings.banned else (TOOLS, SCHEMA)), LOGPROBS),
    )
    generation = _json(folder / "generation_config.json", optional=True)
    stop = _ids(config.get("eos_token_id")) | _ids(generation.get("eos_token_id"))
    if (end := tokenizer.token_to_id(marks["eos_token"])) is not None:
        stop.add(end)
    if not stop:
        raise BadSettings(f"{folder}/generation_config.json must say which token ends an answer: eos_token_id")
    vocabulary = read_vocabulary(settings, sorted(stop))
    return Folder(model, _template(folder, said), marks, sorted(stop), tokenizer, vocabulary, weights)


def read_vocabulary(settings: ExLlama, stop: Sequence[int]) -> Vocabulary:
    """`stop` are the ids that end an answer. Raises `ModelMissing`, `BadSettings`."""
    from inference.exllama.rules import Vocabulary

    return Vocabulary(_read(Path(settings.folder) / "tokenizer.json", _TOKENIZER_MAX_BYTES).decode(), stop)


def weights_digest(files: Sequence[Path]) -> str:
    """Of all files: the digest of what `sha256sum *.safetensors` prints in their folder. Raises `ModelMissing`."""
    try:
        lines = [f"{file_digest(path)}  {path.name}\n" for path in files]
    except OSError as error:
        raise ModelMissing(f"cannot read {error.filename}: {error.strerror}") from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_context(settings: ExLlama, config: dict[str, Any]) -> None:
    longest = config.get("max_position_embeddings", config.get("text_config", {}).get("max_position_embeddings"))
    if isinstance(longest, int) and settings.context > longest:
        raise BadSettings(f"the model takes {longest} tokens: give --context {longest}")


def _safetensors(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.name)
    if files:
        return files
    if any(folder.glob("*.gguf")):
        raise BadSettings(f"{folder} holds a GGUF file, which --engine llamacpp serves")
    raise BadSettings(f"{folder} has no .safetensors; weights in pickles (.bin, .pt) could run code, and are not read")


def _adapter(folder: Path) -> list[Path]:
    """A LoRA's weights. A pickle beside them would be read in their place."""
    if not (weights := folder / "adapter_model.safetensors").is_file():
        raise ModelMissing(f"there is no adapter_model.safetensors in {folder}")
    if (folder / "adapter_model.bin").exists():
        raise BadSettings(f"remove {folder / 'adapter_model.bin'}: it is a pickle, and would be read first")
    return [weights]


def _quantisation(config: dict[str, Any]) -> str:
    said = config.get("quantization_config")
    if isinstance(said, dict) and isinstance(method := said.get("quant_method"), str):
        bits = said.get("bits")
        return f"{method}-{bits:g}bpw" if isinstance(bits, int | float) else method
    precise = config.get("torch_dtype", config.get("dtype"))
    return precise if isinstance(precise, str) else "unknown"


def _template(folder: Path, said: dict[str, Any]) -> str:
    """The chat template, from one of the places where it has been kept over time."""
    if (file := folder / "chat_template.jinja").is_file():
        return _read(file, _JSON_MAX_BYTES).decode()
    found = said.get("chat_template") or _json(folder / "chat_template.json", optional=True).get("chat_template")
    if isinstance(found, list):  # several, by name
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}.get("default")
    if not isinstance(found, str):
        raise BadSettings(f"{folder} has no chat template: is it the model's chat version?")
    return found


def _tokenizer(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EngineError("the tokenizers are not installed; install bombyx[exllama]") from error
    text = _read(path, _TOKENIZER_MAX_BYTES)
    try:
        return Tokenizer.from_buffer(text)
    except Exception as error:  # the library raises no other
        raise BadSettings(f"{path} is no tokenizer that can be read") from error


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        return msgspec.json.decode(_read(path, _JSON_MAX_BYTES), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadSettings(f"{path} is not the JSON of a model's folder") from None


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ModelMissing(f"cannot read {path}: {error.strerror}; --model names a model's folder") from error
    if len(content) > limit:
        raise BadSettings(f"{path} is larger than any such file")
    return content


def _text(said: object) -> str:
    """A token's text, which is either said as such or within an object."""
    if isinstance(said, dict):
        said = said.get("content")
    return said if isinstance(said, str) else ""


def _ids(said: object) -> set[int]:
    """One id or several."""
    several = said if isinstance(said, list) else [said]
    return {one for one in several if isinstance(one, int)}
