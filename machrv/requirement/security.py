"""macOS: Security.framework and CoreFoundation, opened when they are needed.

They are opened at run time with ctypes, since neither is needed to build machrv, nor by a process that judges nobody.
Prototypes: Apple's SDK of macOS 15, Security/SecCode.h, SecRequirement.h, CoreFoundation. csops_audittoken is a call of
libSystem without a public header (xnu-11417, bsd/sys/codesign.h): it answers for the process that a token names, and for
no other that has its number.
"""

# What belongs here: the calls, their arguments, and giving back every object that they create. What must never happen
# here: a decision. No other module knows what these calls look like.

from __future__ import annotations

import ctypes
import errno
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_long, c_size_t, c_ubyte, c_uint32, c_void_p

from machrv.errors import UnsupportedError
from machrv.kernel import current
from machrv.requirement.requirement import Mismatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from machrv.message.audit import AuditToken

_FRAMEWORKS = "/System/Library/Frameworks"

# kSecCSDefaultFlags; errSecSuccess; kCFStringEncodingUTF8; kCFPropertyListXMLFormat_v1_0
_DEFAULT_FLAGS = 0
#: kSecCSBasicValidateOnly: kSecCSDoNotValidateExecutable | kSecCSDoNotValidateResources
_BASIC_ONLY = 1 << 1 | 1 << 2
_SUCCESS = 0
_UTF8 = 0x08000100
_XML_FORMAT = 100
#: PATH_MAX
_LONGEST_PATH = 1024

# xnu-11417, bsd/sys/codesign.h and osfmk/kern/cs_blobs.h
_CS_OPS_TEAMID = 14
_CS_OPS_VALIDATION_CATEGORY = 17
_CS_MAX_TEAMID_LEN = 64
_CATEGORIES = {3: "development", 4: "app_store", 6: "developer_id"}

#: What a status of SecCodeCheckValidity means, where the number alone leaves a reader helpless.
_MEANING = {
    -67050: "it does not fulfil the requirement (errSecCSReqFailed)",
    -67062: "it is not signed (errSecCSUnsigned)",
    -67030: "its Info.plist is not what was signed (errSecCSInfoPlistFailed)",
    -67061: "its signature is broken (errSecCSSignatureFailed)",
    -67054: "a resource of it is not what was signed (errSecCSBadResource)",
    -67065: "there is no such process any more (errSecCSNoSuchCode)",
    100003: "there is no such process any more (ESRCH)",
}

_CALLS: dict[str, tuple[str, Any, list[Any]]] = {
    "CFRelease": ("foundation", None, [c_void_p]),
    "CFStringCreateWithBytes": ("foundation", c_void_p, [c_void_p, c_char_p, c_long, c_uint32, c_ubyte]),
    "CFDataCreate": ("foundation", c_void_p, [c_void_p, c_char_p, c_long]),
    "CFDataGetLength": ("foundation", c_long, [c_void_p]),
    "CFDataGetBytePtr": ("foundation", c_void_p, [c_void_p]),
    "CFDictionaryCreate": (
        "foundation",
        c_void_p,
        [c_void_p, POINTER(c_void_p), POINTER(c_void_p), c_long, c_void_p, c_void_p],
    ),
    "CFDictionaryCreateMutableCopy": ("foundation", c_void_p, [c_void_p, c_long, c_void_p]),
    "CFDictionaryRemoveValue": ("foundation", None, [c_void_p, c_void_p]),
    "CFBundleGetMainBundle": ("foundation", c_void_p, []),
    "CFBundleCopyBundleURL": ("foundation", c_void_p, [c_void_p]),
    "CFBundleCreate": ("foundation", c_void_p, [c_void_p, c_void_p]),
    "CFURLGetFileSystemRepresentation": ("foundation", c_ubyte, [c_void_p, c_ubyte, c_char_p, c_long]),
    "CFURLCreateFromFileSystemRepresentation": ("foundation", c_void_p, [c_void_p, c_char_p, c_long, c_ubyte]),
    "CFBundleGetInfoDictionary": ("foundation", c_void_p, [c_void_p]),
    "CFPropertyListCreateData": ("foundation", c_void_p, [c_void_p, c_void_p, c_long, c_size_t, c_void_p]),
    "SecRequirementCreateWithString": ("security", c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "SecCodeCopyGuestWithAttributes": ("security", c_int32, [c_void_p, c_void_p, c_uint32, POINTER(c_void_p)]),
    "SecCodeCheckValidity": ("security", c_int32, [c_void_p, c_uint32, c_void_p]),
    "SecStaticCodeCheckValidity": ("security", c_int32, [c_void_p, c_uint32, c_void_p]),
    "csops_audittoken": ("system", c_int, [c_int, c_uint32, c_void_p, c_size_t, c_void_p]),
}


class _Created:
    """The objects that the calls of one operation have created: released when it is over."""

    def __init__(self, framework: SecurityFramework) -> None:
        self._framework = framework
        self._objects: list[int] = []

    def keep(self, created: int | None, what: str) -> int:
        """Take over what a Create or Copy call returned. Raises OSError for NULL."""
        if not created:
            raise OSError(errno.ENOMEM, f"{what} created nothing")
        self._objects.append(created)
        return created

    def data(self, contents: bytes) -> int:
        """A CFData."""
        return self.keep(self._framework.call("CFDataCreate")(None, contents, len(contents)), "CFDataCreate")

    def string(self, text: str) -> int:
        """A CFString."""
        encoded = text.encode()
        create = self._framework.call("CFStringCreateWithBytes")
        return self.keep(create(None, encoded, len(encoded), _UTF8, 0), "CFStringCreateWithBytes")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._objects:
            self._framework.call("CFRelease")(self._objects.pop())


class SecurityFramework:
    """What machrv asks of macOS about code signatures. Safe to use from any thread."""

    _loaded: SecurityFramework | None = None

    def __init__(self, security: Any, foundation: Any, system: Any) -> None:
        """For opened libraries, or stand-ins whose attributes are functions with the same names."""
        self._libraries = {"security": security, "foundation": foundation, "system": system}
        self._calls: dict[str, Any] = {}

    @classmethod
    def load(cls) -> SecurityFramework:
        """The system's. Raises UnsupportedError anywhere but on macOS."""
        if cls._loaded is None:
            if sys.platform != "darwin":
                raise UnsupportedError("this requirement is for macOS: only there can a code signature be checked")
            paths = [f"{_FRAMEWORKS}/{name}.framework/{name}" for name in ("Security", "CoreFoundation")]
            try:
                opened = [*(ctypes.CDLL(path) for path in paths), ctypes.CDLL(None, use_errno=True)]
            except OSError as error:
                raise UnsupportedError(f"code signatures cannot be checked: {error}") from error
            cls._loaded = cls(*opened)
        return cls._loaded

    def call(self, name: str) -> Any:
        """A function, with its prototype."""
        found = self._calls.get(name)
        if found is None:
            library, result, arguments = _CALLS[name]
            found = getattr(self._libraries[library], name)
            found.restype, found.argtypes = result, arguments
            self._calls[name] = found
        return found

    def _constant(self, library: str, name: str) -> int:
        """The value of an exported `const CFTypeRef`. Raises UnsupportedError where the system has none."""
        try:
            found = c_void_p.in_dll(self._libraries[library], name).value
        except ValueError as error:
            raise UnsupportedError(f"this macOS has no {name}: {error}") from error
        return found or 0

    def _address(self, library: str, name: str) -> int:
        """The address of an exported struct."""
        return ctypes.addressof(c_ubyte.in_dll(self._libraries[library], name))

    def check(self, token: AuditToken, text: str, info_plist: bytes | None = None) -> str | None:
        """Why the process with this token does not fulfil the requirement `text`; None if it does.

        With `info_plist`, only what runs is judged, by this data in place of what is on the disk. Raises OSError where
        the text cannot be read, UnsupportedError where this macOS cannot judge so.
        """
        with _Created(self) as created:
            attributes = self._attributes(token, info_plist, created)
            requirement = self._requirement(text, created)
            code = c_void_p()
            status = self.call("SecCodeCopyGuestWithAttributes")(None, attributes, _DEFAULT_FLAGS, byref(code))
            if status == _SUCCESS:
                kept = created.keep(code.value, "SecCodeCopyGuestWithAttributes")
                status = self.call("SecCodeCheckValidity")(kept, _DEFAULT_FLAGS, requirement)
        if status == _SUCCESS:
            return None
        return Mismatch(_MEANING.get(status, f"its code signature was refused, status {status}"), status)

    def own_validity(self, text: str | None, info_plist: bytes) -> int:
        """Whether this process, as it runs, is validly signed and fulfils `text` (None: whatever it is): a status, 0 for yes.

        By `info_plist` in place of what is on the disk; executable and resources there are not looked at.
        """
        with _Created(self) as created:
            requirement = None if text is None else self._requirement(text, created)
            code = c_void_p()
            attributes = self._attributes(self.own_audit_token(), info_plist, created)
            status = self.call("SecCodeCopyGuestWithAttributes")(None, attributes, _DEFAULT_FLAGS, byref(code))
            if status == _SUCCESS:
                kept = created.keep(code.value, "SecCodeCopyGuestWithAttributes")
                status = self.call("SecStaticCodeCheckValidity")(kept, _BASIC_ONLY, requirement)
        return int(status)

    def _attributes(self, token: AuditToken, info_plist: bytes | None, created: _Created) -> int:
        """A process by its token; with `info_plist`, as it runs."""
        items = [(self._constant("security", "kSecGuestAttributeAudit"), created.data(bytes(token)))]
        if info_plist is not None:
            yes = self._constant("foundation", "kCFBooleanTrue")
            items.append((self._constant("security", "kSecGuestAttributeDynamicCode"), yes))
        if info_plist:
            key = self._constant("security", "kSecGuestAttributeDynamicCodeInfoPlist")
            items.append((key, created.data(info_plist)))
        return self._dictionary(items, created)

    def _requirement(self, text: str, created: _Created) -> int:
        requirement = c_void_p()
        status = self.call("SecRequirementCreateWithString")(created.string(text), _DEFAULT_FLAGS, byref(requirement))
        if status != _SUCCESS:
            raise OSError(errno.EINVAL, f"Security.framework does not read the requirement {text!r}: status {status}")
        return created.keep(requirement.value, "SecRequirementCreateWithString")

    def _dictionary(self, items: Sequence[tuple[int, int]], created: _Created) -> int:
        room = c_void_p * len(items)
        keys, values = room(*(key for key, _ in items)), room(*(value for _, value in items))
        callbacks = [
            self._address("foundation", name)
            for name in ("kCFTypeDictionaryKeyCallBacks", "kCFTypeDictionaryValueCallBacks")
        ]
        dictionary = self.call("CFDictionaryCreate")(None, keys, values, len(items), *callbacks)
        return created.keep(dictionary, "CFDictionaryCreate")

    def team_identifier(self) -> str:
        """The team that signed this process, "" where there is none. Raises OSError if the system does not say."""
        # struct { uint32_t type, length; char identifier[]; }: the length, big-endian, includes the struct's head.
        answer = ctypes.create_string_buffer(8 + _CS_MAX_TEAMID_LEN + 1)
        if self._csops(_CS_OPS_TEAMID, answer, len(answer)) != 0:
            error = ctypes.get_errno()
            if error in (errno.ENOENT, errno.EINVAL):  # signed ad hoc; not signed
                return ""
            raise OSError(error, "csops_audittoken(CS_OPS_TEAMID) failed")
        return answer.raw[8:].split(b"\0", 1)[0].decode("ascii", "replace")

    def certificate_type(self) -> str | None:
        """As in `darwin.CERTIFICATE_TYPES`; "" for another type; None before macOS 13, which does not say."""
        category = c_uint32()
        if self._csops(_CS_OPS_VALIDATION_CATEGORY, byref(category), ctypes.sizeof(category)) != 0:
            return None
        return _CATEGORIES.get(category.value, "")

    def _csops(self, operation: int, into: Any, size: int) -> int:
        token = ctypes.create_string_buffer(bytes(self.own_audit_token()))
        return int(self.call("csops_audittoken")(os.getpid(), operation, into, size, token))

    def own_audit_token(self) -> AuditToken:
        """This process's."""
        return current().audit_token()

    def main_bundle_path(self) -> bytes:
        """Where the main bundle is; b"" where the process has none."""
        with _Created(self) as created:
            bundle = self.call("CFBundleGetMainBundle")()
            if not bundle:
                return b""
            url = created.keep(self.call("CFBundleCopyBundleURL")(bundle), "CFBundleCopyBundleURL")
            path = ctypes.create_string_buffer(_LONGEST_PATH)
            return path.value if self.call("CFURLGetFileSystemRepresentation")(url, 1, path, len(path)) else b""

    def info_plist(self, path: bytes = b"") -> bytes:
        """The Info.plist of a bundle as XML, from the copy in memory; b"" where there is none.

        `path`: b"" is the main bundle.
        """
        with _Created(self) as created:
            bundle = self._bundle(path, created) if path else self.call("CFBundleGetMainBundle")()
            information = bundle and self.call("CFBundleGetInfoDictionary")(bundle)
            if not information:
                return b""
            copy = created.keep(
                self.call("CFDictionaryCreateMutableCopy")(None, 0, information), "CFDictionaryCreateMutableCopy"
            )
            # CoreFoundation puts this key into its copy; the file that was signed does not have it. There is a constant
            # for it, but a private one.
            self.call("CFDictionaryRemoveValue")(copy, created.string("CFBundleNumericVersion"))
            plist = self.call("CFPropertyListCreateData")(None, copy, _XML_FORMAT, _DEFAULT_FLAGS, None)
            if not plist:
                return b""
            data = created.keep(plist, "CFPropertyListCreateData")
            size = self.call("CFDataGetLength")(data)
            return ctypes.string_at(self.call("CFDataGetBytePtr")(data), size) if size else b""

    def _bundle(self, path: bytes, created: _Created) -> int:
        url = self.call("CFURLCreateFromFileSystemRepresentation")(None, path, len(path), 1)
        url = created.keep(url, "CFURLCreateFromFileSystemRepresentation")
        return created.keep(self.call("CFBundleCreate")(None, url), "CFBundleCreate")
