"""Bodies of `POST /v1/completions`: what is read of a request, how an answer is written."""

from __future__ import annotations

from ..errors import InvalidArgument
from .engine import Sampling

MOST_LOGPROBS = 20
# Fields that other servers know and this one does not: they may have the value that changes nothing.
NEUTRAL = {
    "n": (1,),
    "best_of": (1,),
    "stream": (False,),
    "echo": (False,),
    "stop": ("", []),
    "suffix": ("",),
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "user": None,
    "model": None,
}
READ = ("prompt", "max_tokens", "temperature", "seed", "logprobs", "return_token_ids", "ignore_eos")


def read(body: dict, tokenizer) -> tuple[list[int], Sampling]:
    """(prompt's token ids, sampling). Raises InvalidArgument for what this server does not do."""
    for name, value in body.items():
        if name in READ:
            continue
        if name not in NEUTRAL:
            raise InvalidArgument(f"'{name}' is not known here; there are {', '.join(READ)}")
        allowed = NEUTRAL[name]
        if allowed is not None and value is not None and value not in allowed:
            raise InvalidArgument(f"'{name}' can only be {allowed[0]!r} here, found {value!r}")
    sampling = Sampling(
        max_tokens=_number(body, "max_tokens", int, 16),
        temperature=float(_number(body, "temperature", (int, float), 1.0)),
        seed=_number(body, "seed", int, None),
        top_logprobs=_number(body, "logprobs", int, 0),
        ignore_eos=_flag(body, "ignore_eos"),
    )
    if not 0 <= sampling.top_logprobs <= MOST_LOGPROBS:
        raise InvalidArgument(f"'logprobs' must be 0 to {MOST_LOGPROBS}, found {sampling.top_logprobs}")
    if sampling.seed is not None and not -(1 << 63) <= sampling.seed < 1 << 63:
        raise InvalidArgument(f"'seed' must fit 64 bits, found {sampling.seed}")
    _flag(body, "return_token_ids")
    return _prompt(body.get("prompt"), tokenizer), sampling


def _number(body, name, kind, default):
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, kind):
        raise InvalidArgument(f"'{name}' must be a number{' without a fraction' if kind is int else ''}, found {value!r}")
    return value


def _flag(body, name):
    value = body.get(name)
    if value not in (None, False, True) or isinstance(value, (int, float)) and not isinstance(value, bool):
        raise InvalidArgument(f"'{name}' must be true or false, found {value!r}")
    return bool(value)


def _prompt(prompt, tokenizer):
    if isinstance(prompt, str):
        if tokenizer is None:
            raise InvalidArgument("this model came without a tokenizer: the prompt must be a list of token ids")
        return list(tokenizer(prompt)["input_ids"])
    if isinstance(prompt, list) and all(isinstance(token, int) and not isinstance(token, bool) for token in prompt):
        return prompt
    raise InvalidArgument("'prompt' must be one text or one list of token ids")


def _text(tokenizer, tokens):
    return "" if tokenizer is None else tokenizer.decode(tokens, skip_special_tokens=True)


def _word(tokenizer, token):
    return f"token_id:{token}" if tokenizer is None else tokenizer.decode([token])


def written(body: dict, prompt: list[int], done, tokenizer) -> dict:
    """The answer for a Completion, without what the server adds."""
    choice = {
        "index": 0,
        "text": _text(tokenizer, done.tokens),
        "finish_reason": done.finish_reason,
        "logprobs": None,
    }
    if body.get("logprobs") is not None:
        choice["logprobs"] = {
            "tokens": [_word(tokenizer, token) for token in done.tokens],
            "token_logprobs": done.logprobs,
            "top_logprobs": [{_word(tokenizer, token): value for token, value in top} for top in done.top],
        }
    if body.get("return_token_ids"):
        choice |= {"token_ids": done.tokens, "prompt_token_ids": prompt}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(done.tokens),
             "total_tokens": len(prompt) + len(done.tokens)}
    return {
        "object": "text_completion",
        "choices": [choice],
        "usage": usage,
        "first_weight_version": done.versions[0] if done.versions else None,
        "weight_version": done.versions[-1] if done.versions else None,
    }
