"""Tab completion on a `%mlsys` line, in IPython's terms. What may follow is decided by `studio.completion`."""

from __future__ import annotations

import re
from collections.abc import Callable

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from ..studio.completion import complete

_LINE = re.compile(r"^\s*(?:\w+\s*=\s*)?%%?mlsys\s+(?P<typed>.*)$")


def matcher(shell: InteractiveShell) -> Callable[[CompletionContext], SimpleMatcherResult]:
    @context_matcher(identifier="mlsys")
    def mlsys(context: CompletionContext) -> SimpleMatcherResult:
        line = _LINE.match(context.text_until_cursor)
        if not line:
            return {"completions": []}
        fragment, words = complete(line["typed"], shell.user_ns)
        return {
            "completions": [SimpleCompletion(text=word, type="magic") for word in words],
            "matched_fragment": fragment,
            "suppress": True,
        }

    return mlsys
