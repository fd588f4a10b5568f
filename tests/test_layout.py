"""The layouts and values of include/machrv/ against what is known of XNU's, independently of those headers."""

from __future__ import annotations

import struct

import pytest

from machrv._mach import ffi, lib
from machrv.message.descriptor import KINDS, TYPE_OFFSET
from machrv.message.layout import layout, members, offset_of

SIZES = {
    "mach_msg_header_t": 24,
    "mach_msg_body_t": 4,
    "mach_msg_base_t": 28,
    "mach_msg_type_descriptor_t": 12,
    "mach_msg_port_descriptor_t": 12,
    "mach_msg_ool_descriptor_t": 16,
    "mach_msg_ool_ports_descriptor_t": 16,
    "mach_msg_guarded_port_descriptor_t": 16,
    "mach_msg_trailer_t": 8,
    "mach_msg_seqno_trailer_t": 12,
    "mach_msg_security_trailer_t": 20,
    "mach_msg_audit_trailer_t": 52,
    "mach_msg_context_trailer_t": 60,
    "mach_msg_mac_trailer_t": 68,
    "security_token_t": 8,
    "audit_token_t": 32,
    "msg_labels_t": 4,
    "mach_port_status_t": 40,
    "mach_port_limits_t": 4,
}

# Every member at its offset, in the order of memory, with the letter that `struct` has for it.
OFFSETS = {
    "mach_msg_header_t": [
        (0, "msgh_bits", "I"),
        (4, "msgh_size", "I"),
        (8, "msgh_remote_port", "I"),
        (12, "msgh_local_port", "I"),
        (16, "msgh_voucher_port", "I"),
        (20, "msgh_id", "i"),
    ],
    "mach_msg_body_t": [(0, "msgh_descriptor_count", "I")],
    "mach_msg_port_descriptor_t": [
        (0, "name", "I"),
        (4, "pad1", "I"),
        (8, "pad2", "H"),
        (10, "disposition", "B"),
        (11, "type", "B"),
    ],
    "mach_msg_ool_descriptor_t": [
        (0, "address", "Q"),
        (8, "deallocate", "B"),
        (9, "copy", "B"),
        (10, "pad1", "B"),
        (11, "type", "B"),
        (12, "size", "I"),
    ],
    "mach_msg_ool_ports_descriptor_t": [
        (0, "address", "Q"),
        (8, "deallocate", "B"),
        (9, "copy", "B"),
        (10, "disposition", "B"),
        (11, "type", "B"),
        (12, "count", "I"),
    ],
    "mach_msg_guarded_port_descriptor_t": [
        (0, "context", "Q"),
        (8, "flags", "H"),
        (10, "disposition", "B"),
        (11, "type", "B"),
        (12, "name", "I"),
    ],
    "mach_msg_mac_trailer_t": [
        (0, "msgh_trailer_type", "I"),
        (4, "msgh_trailer_size", "I"),
        (8, "msgh_seqno", "I"),
        (12, "msgh_sender", "2I"),
        (20, "msgh_audit", "8I"),
        (52, "msgh_context", "Q"),
        (60, "msgh_ad", "i"),
        (64, "msgh_labels", "I"),
    ],
}

VALUES = {
    "MACH_PORT_NULL": 0,
    "MACH_PORT_DEAD": 0xFFFFFFFF,
    "MACH_PORT_UREFS_MAX": 0xFFFF,
    "MACH_PORT_QLIMIT_DEFAULT": 5,
    "MACH_PORT_QLIMIT_MAX": 1024,
    "MACH_PORT_RIGHT_SEND": 0,
    "MACH_PORT_RIGHT_RECEIVE": 1,
    "MACH_PORT_RIGHT_SEND_ONCE": 2,
    "MACH_PORT_RIGHT_PORT_SET": 3,
    "MACH_PORT_RIGHT_DEAD_NAME": 4,
    "MACH_PORT_TYPE_SEND": 1 << 16,
    "MACH_PORT_TYPE_RECEIVE": 1 << 17,
    "MACH_PORT_TYPE_SEND_ONCE": 1 << 18,
    "MACH_PORT_TYPE_PORT_SET": 1 << 19,
    "MACH_PORT_TYPE_DEAD_NAME": 1 << 20,
    "MACH_PORT_TYPE_DNREQUEST": 1 << 31,
    "MACH_PORT_LIMITS_INFO_COUNT": 1,
    "MACH_PORT_RECEIVE_STATUS_COUNT": 10,
    "MPO_REPLY_PORT": 0x1000,
    "MPO_ENFORCE_REPLY_PORT_SEMANTICS": 0x2000,
    "MPO_PROVISIONAL_REPLY_PORT": 0x4000,
    "MACH_MSG_TYPE_MOVE_RECEIVE": 16,
    "MACH_MSG_TYPE_MOVE_SEND": 17,
    "MACH_MSG_TYPE_MOVE_SEND_ONCE": 18,
    "MACH_MSG_TYPE_COPY_SEND": 19,
    "MACH_MSG_TYPE_MAKE_SEND": 20,
    "MACH_MSG_TYPE_MAKE_SEND_ONCE": 21,
    "MACH_MSG_TYPE_PORT_RECEIVE": 16,
    "MACH_MSG_TYPE_PORT_SEND": 17,
    "MACH_MSG_TYPE_PORT_SEND_ONCE": 18,
    "MACH_MSG_PORT_DESCRIPTOR": 0,
    "MACH_MSG_OOL_DESCRIPTOR": 1,
    "MACH_MSG_OOL_PORTS_DESCRIPTOR": 2,
    "MACH_MSG_OOL_VOLATILE_DESCRIPTOR": 3,
    "MACH_MSG_GUARDED_PORT_DESCRIPTOR": 4,
    "MACH_RCV_TRAILER_NULL": 0,
    "MACH_RCV_TRAILER_SEQNO": 1,
    "MACH_RCV_TRAILER_SENDER": 2,
    "MACH_RCV_TRAILER_AUDIT": 3,
    "MACH_RCV_TRAILER_CTX": 4,
    "MACH_RCV_TRAILER_AV": 7,
    "MACH_RCV_TRAILER_LABELS": 8,
    "MACH_RCV_TRAILER_MASK": 0x0F000000,
    "MACH_MSG_TRAILER_MINIMUM_SIZE": 8,
    "MAX_TRAILER_SIZE": 68,
    "MACH_NOTIFY_PORT_DELETED": 65,
    "MACH_NOTIFY_SEND_POSSIBLE": 66,
    "MACH_NOTIFY_PORT_DESTROYED": 69,
    "MACH_NOTIFY_NO_SENDERS": 70,
    "MACH_NOTIFY_SEND_ONCE": 71,
    "MACH_NOTIFY_DEAD_NAME": 72,
    "BOOTSTRAP_MAX_NAME_LEN": 128,
    "BOOTSTRAP_NOT_PRIVILEGED": 1100,
    "BOOTSTRAP_NAME_IN_USE": 1101,
    "BOOTSTRAP_UNKNOWN_SERVICE": 1102,
    "BOOTSTRAP_SERVICE_ACTIVE": 1103,
    "BOOTSTRAP_BAD_COUNT": 1104,
    "BOOTSTRAP_NO_MEMORY": 1105,
    "MACHRV_REQUEST_ID": int.from_bytes(b"mrzv", "big"),
    "MACHRV_REQUEST_WITH_INFO_PLIST_ID": int.from_bytes(b"mrzV", "big"),
    "MACHRV_REPLY_ID": int.from_bytes(b"MRZV", "big"),
    "MACHRV_CHROMIUM_MAX_PORTS": 6,
    "MACHRV_CHROMIUM_MAX_INFO_PLIST_SIZE": 18432,
}


@pytest.mark.parametrize("name", SIZES)
def test_every_struct_has_xnus_size(name: str) -> None:
    """A struct is as large as XNU's, in the compiler's eyes and as a `struct` format, and four bytes align it."""
    assert SIZES[name] == ffi.sizeof(name)
    assert 4 == ffi.alignof(name)
    if name != "mach_msg_type_descriptor_t":
        assert SIZES[name] == struct.calcsize("=" + layout(name))


@pytest.mark.parametrize("name", OFFSETS)
def test_every_member_is_where_xnu_has_it(name: str) -> None:
    """Each member, bit-fields too, lies at XNU's offset, with XNU's width and sign."""
    assert OFFSETS[name] == members(name)


def test_the_type_of_every_descriptor_is_at_offset_11() -> None:
    """A reader finds a descriptor's type at one place before it knows the kind."""
    assert 11 == TYPE_OFFSET
    for kind, _, _ in KINDS.values():
        assert 11 == offset_of(kind.STRUCT, "type")
    assert {0, 1, 2, 3, 4} == set(KINDS)


@pytest.mark.parametrize("name", VALUES)
def test_every_constant_has_its_known_value(name: str) -> None:
    """What the compiler answers for a constant is what is known from elsewhere."""
    assert VALUES[name] == getattr(lib, name)


def test_the_trailers_are_prefixes_of_each_other() -> None:
    """A larger trailer has the smaller one's fields at the same places, so that reading one by its size is sound."""
    largest = members("mach_msg_mac_trailer_t")
    for kind in ("trailer", "seqno_trailer", "security_trailer", "audit_trailer", "context_trailer"):
        assert members(f"mach_msg_{kind}_t") == largest[: len(members(f"mach_msg_{kind}_t"))]


def test_the_build_has_read_the_layouts_as_the_compiler_has() -> None:
    """The formats that the codec begins with are those that CFFI tells of every member, of every struct of a message."""
    told = ffi.string(lib.machrv_layouts).decode().split()
    assert {"mach_msg_header_t", "mach_msg_port_descriptor_t", "mach_msg_mac_trailer_t"} <= set(told[::2])
    for name, code in zip(told[::2], told[1::2]):
        assert layout(name) == code == "".join(letter for _, _, letter in members(name)), name
    assert TYPE_OFFSET == offset_of("mach_msg_type_descriptor_t", "type")
