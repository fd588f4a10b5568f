"""Reads Mach-O files: what a module for macOS is built for, and what it asks of others.

Layouts as in <mach-o/loader.h> and <mach-o/nlist.h>, 64 bits, little-endian.
"""

from __future__ import annotations

from struct import unpack_from

MAGIC = 0xFEEDFACF
ARCHITECTURES = {0x0100000C: "arm64", 0x01000007: "x86_64"}
DYLIB = 6
PLATFORM_MACOS = 1
LC_SYMTAB, LC_LOAD_DYLIB, LC_ID_DYLIB, LC_CODE_SIGNATURE, LC_BUILD_VERSION = 0x2, 0xC, 0xD, 0x1D, 0x32
LC_DYLD_INFO_ONLY = 0x80000022
N_TYPE, N_UNDF, N_EXT = 0x0E, 0x00, 0x01
#: What a symbol is bound to: the number of a library, or this for whichever in the process has it.
FLAT_LOOKUP = -2
#: The upper half of each byte of the bind table is what to do; some have numbers behind them.
SET_ORDINAL, SET_ORDINAL_ULEB, SET_SPECIAL_ORDINAL, SET_SYMBOL = 0x10, 0x20, 0x30, 0x40
NUMBERS = {0x60: 1, 0x70: 1, 0x80: 1, 0xA0: 1, 0xC0: 2}
BINDS = (0x90, 0xA0, 0xB0, 0xC0)


class MachO:
    """One thin 64-bit Mach-O file."""

    def __init__(self, image: bytes) -> None:
        magic, cpu, _, self.file_type, commands, _, _, _ = unpack_from("<8I", image)
        assert magic == MAGIC, hex(magic)
        self.architecture = ARCHITECTURES[cpu]
        self.platform = 0
        self.oldest_system = ""
        self.is_signed = False
        self.name = ""
        #: the libraries it is linked with, in order
        self.libraries: list[str] = []
        self.undefined: set[str] = set()
        #: symbol -> the library that it is bound to, by number from 1, or FLAT_LOOKUP
        self.bound: dict[str, int] = {}
        self.exported: set[str] = set()
        offset = 32
        for _ in range(commands):
            command, size = unpack_from("<2I", image, offset)
            self._command(command, image[offset : offset + size], image)
            offset += size

    def _command(self, command: int, data: bytes, image: bytes) -> None:
        if command == LC_BUILD_VERSION:
            self.platform, version = unpack_from("<2I", data, 8)
            self.oldest_system = f"{version >> 16}.{version >> 8 & 0xFF}"
        elif command in (LC_LOAD_DYLIB, LC_ID_DYLIB):
            (start,) = unpack_from("<I", data, 8)
            name = data[start:].partition(b"\0")[0].decode()
            if command == LC_ID_DYLIB:
                self.name = name
            else:
                self.libraries.append(name)
        elif command == LC_CODE_SIGNATURE:
            self.is_signed = True
        elif command == LC_DYLD_INFO_ONLY:
            _, _, at, size, weak, _, lazy, lazy_size = unpack_from("<8I", data, 8)
            assert weak == 0 or unpack_from("<I", data, 28)[0] == 0
            self._bindings(image[at : at + size])
            self._bindings(image[lazy : lazy + lazy_size])
        elif command == LC_SYMTAB:
            self._symbols(image, *unpack_from("<4I", data, 8))

    def _symbols(self, image: bytes, offset: int, count: int, strings: int, _: int) -> None:
        for index in range(count):
            name_at, kind, _, _, _ = unpack_from("<IBBHQ", image, offset + 16 * index)
            start = strings + name_at
            name = image[start : image.index(0, start)].decode()
            if kind & N_EXT and kind & N_TYPE == N_UNDF:
                self.undefined.add(name)
            elif kind & N_EXT:
                self.exported.add(name)

    def _bindings(self, table: bytes) -> None:
        """Run the bind table: each symbol with the library that is set when it is bound."""
        at, library, symbol = 0, 0, ""
        while at < len(table):
            operation, value = table[at] & 0xF0, table[at] & 0x0F
            at += 1
            if operation == SET_ORDINAL:
                library = value
            elif operation == SET_SPECIAL_ORDINAL:
                library = value - 16 if value else 0
            elif operation == SET_SYMBOL:
                end = table.index(0, at)
                symbol, at = table[at:end].decode(), end + 1
            elif operation == SET_ORDINAL_ULEB:
                library, at = _uleb128(table, at)
            for _ in range(NUMBERS.get(operation, 0)):
                _, at = _uleb128(table, at)
            if operation in BINDS:
                self.bound[symbol] = library


def _uleb128(table: bytes, at: int) -> tuple[int, int]:
    """The number at an offset, and the offset behind it."""
    value = shift = 0
    while True:
        byte = table[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
