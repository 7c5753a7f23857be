"""Pickles of plain values, read without Python's unpickler: dicts, lists, tuples, texts, numbers, and nothing else.

`torch.cuda.memory._dump_snapshot` writes a pickle, and a pickle can run any program while it is loaded. Here no opcode
exists that imports, calls or builds an object, so a hostile file is refused and cannot do anything. What a value costs
was in the file: no opcode makes room for more than it brings.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ..errors import UsageError

MARK = object()
STOP = 0x2E
_CONSTANTS: dict[int, Any] = {0x4E: None, 0x88: True, 0x89: False}
_EMPTY: dict[int, Callable[[], Any]] = {0x7D: dict, 0x5D: list, 0x29: tuple}
_NUMBERS = {0x4A: "<i", 0x4B: "<B", 0x4D: "<H", 0x47: ">d"}
_TEXTS = {0x8C: "<B", 0x58: "<I", 0x8D: "<Q"}  # opcode: its length, as written
_BYTES = {0x43: "<B", 0x42: "<I", 0x8E: "<Q"}
_LONGS = {0x8A: "<B", 0x8B: "<I"}
_GETS = {0x68: "<B", 0x6A: "<I"}
_PUTS = {0x71: "<B", 0x72: "<I"}
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_SKIPPED = {0x80: 1, 0x95: 8}  # protocol, frame: bytes that follow
LONGEST = 64  # bytes of an integer


def loads(data: bytes) -> Any:
    """The value. Raises UsageError where the file is damaged, cut off, or holds anything but plain values."""
    try:
        return _Reader(data).value()
    except (struct.error, IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"the pickle is damaged or cut off ({type(error).__name__}): write the snapshot again"
        ) from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        data, stack, memo = self._data, self._stack, self._memo
        while True:
            code = data[self._at]
            self._at += 1
            if code == 0x94:  # by how often they occur
                memo[len(memo)] = stack[-1]
            elif code in _GETS:
                stack.append(memo[self._number(_GETS[code])])
            elif code in _TEXTS:
                stack.append(self._bytes(_TEXTS[code]).decode("utf-8", "surrogatepass"))
            elif code in _NUMBERS:
                stack.append(self._number(_NUMBERS[code]))
            elif code == 0x28:
                stack.append(MARK)
            elif code in _EMPTY:
                stack.append(_EMPTY[code]())
            elif code == STOP:
                (value,) = stack
                return value
            else:
                self._rare(code)

    def _rare(self, code: int) -> None:
        stack = self._stack
        if code == 0x75:  # SETITEMS
            items = self._since_mark()
            _is(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif code == 0x65:  # APPENDS
            items = self._since_mark()
            _is(stack[-1], list).extend(items)
        elif code == 0x73:  # SETITEM
            value, key = stack.pop(), stack.pop()
            _is(stack[-1], dict)[key] = value
        elif code == 0x61:  # APPEND
            item = stack.pop()
            _is(stack[-1], list).append(item)
        elif code in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[code])]
            stack.append(tuple(reversed(items)))
        elif code == 0x74:  # TUPLE
            stack.append(tuple(self._since_mark()))
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in _LONGS:
            stack.append(self._long(_LONGS[code]))
        elif code in _BYTES:
            stack.append(self._bytes(_BYTES[code]))
        elif code in _PUTS:
            self._memo[self._number(_PUTS[code])] = stack[-1]
        elif code in _SKIPPED:
            self._at += _SKIPPED[code]
        else:
            raise UsageError(
                f"the pickle holds more than plain values (opcode {code:#04x}), which a memory snapshot never does: "
                "it is not read"
            )

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not MARK:
            items.append(item)
        items.reverse()
        return items

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return number

    def _bytes(self, form: str) -> bytes:
        count = self._number(form)
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise IndexError(count)
        self._at += count
        return found

    def _long(self, form: str) -> int:
        text = self._bytes(form)
        if len(text) > LONGEST:
            raise ValueError(len(text))
        return int.from_bytes(text, "little", signed=True)


def _is(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(kind)
    return value
