"""Faults in who is believed."""

from __future__ import annotations

from .fault import Fault

C = "machrv/native/linux/"
CLAIMS, BUNDLES, IDENTITY = "test_linux_hostile_claims.py", "test_linux_hostile_bundles.py", "test_linux_identity.py"

FAULTS = [
    Fault(
        "a packet from nobody is one of this process's own, and bears the kernel's token",
        f"{C}ipc_incoming.c",
        "    if (sender->pid <= 0)\n        return false;\n",
        "",
        (f"{BUNDLES}::test_who_takes_attestation_away_is_not_believed",),
        (
            ("in->own = sender->pid == self_pid() &&", "in->own = (!sender->pid || sender->pid == self_pid()) &&"),
            ("if (!sender->pinned && !sender->reaped && system", "if (sender->pid && !sender->pinned && system"),
        ),
    ),
    Fault(
        "a sender without credentials is accepted",
        f"{C}ipc_incoming.c",
        "    if (sender->pid <= 0)\n        return false;\n",
        "",
        (f"{BUNDLES}::test_who_takes_attestation_away_is_not_believed", f"{BUNDLES}::test_packets_from_nobody"),
    ),
    Fault(
        "a sender without a pidfd is accepted where one is due",
        f"{C}ipc_incoming.c",
        "if (!sender->pinned && !sender->reaped && system_attests_processes())",
        "if (false && system_attests_processes())",
        (f"{BUNDLES}::test_who_takes_attestation_away_is_not_believed",),
    ),
    Fault(
        "whoever says so is the kernel",
        f"{C}ipc_incoming.c",
        "if (in->own && in->header.flags & WIRE_NOTIFICATION)",
        "if (in->header.flags & WIRE_NOTIFICATION)",
        ("test_linux_hostile_packets.py::test_a_forged_notification_bears_its_senders_token",),
    ),
    Fault(
        "the effective ids of a sender are its real ones",
        f"{C}ipc_incoming.c",
        "uid = sender->ids ? sender->euid : sender->uid;",
        "uid = sender->uid;",
        (f"{IDENTITY}::test_effective_ids",),
    ),
    Fault(
        "who was known on a socket is believed to have sent all that comes there",
        f"{C}packet.c",
        "head->pid == known->pid && pidfd_ids",
        "pidfd_ids",
        (f"{IDENTITY}::test_a_sender_that_is_known_for_good_is_not_taken_for_another",),
    ),
    Fault(
        "what a previous holder has switched off stays off",
        f"{C}packet.c",
        "int zero = 0, none = -1, error = packet_attest(fd);",
        "int zero = 0, none = -1, error = 0;",
        (f"{BUNDLES}::test_what_a_previous_holder_switched_off_is_switched_on",),
    ),
    Fault(
        "what a previous holder hides of a queue stays hidden",
        f"{C}packet.c",
        "    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof none);\n",
        "    (void)none;\n",
        (f"{BUNDLES}::test_what_a_previous_holder_switched_off_is_switched_on",),
    ),
    Fault(
        "two send rights are merged by the claimed id alone",
        f"{C}ipc_object.c",
        "if (made_by && made_by == maker(entry->socket))",
        "if (made_by)",
        (f"{CLAIMS}::test_a_socket_that_claims_the_id_of_a_port_that_we_send_to",),
    ),
    Fault(
        "a right has come home because it claims so",
        f"{C}ipc_object.c",
        "if (port && ipc_port_has_end(port, right->socket) && (",
        "if (port && (",
        (f"{CLAIMS}::test_a_socket_that_claims_the_id_of_our_port",),
    ),
    Fault(
        "an equal address in another network namespace is the same end",
        f"{C}ipc_end.c",
        "return theirs && theirs == ours ? end : NULL;",
        "return end;",
        (f"{CLAIMS}::test_another_network_namespace_cannot_bind_a_port_of_ours",),
    ),
    Fault(
        "a bundle may claim the id of a port that is here",
        f"{C}ipc_transit.c",
        "ipc_port_new(ipc_port_find(task, head.id) ? NULL : head.id)",
        "ipc_port_new(head.id)",
        (f"{CLAIMS}::test_a_bundle_with_the_id_of_a_port_that_is_here",),
    ),
    Fault(
        "a listener comes from another process",
        f"{C}ipc_transit.c",
        "if (!own || port->bootstrap ||",
        "if (port->bootstrap ||",
        (f"{BUNDLES}::test_a_listener_does_not_come_from_another_process",),
    ),
    Fault(
        "a directory that others can enter is good enough",
        f"{C}bootstrap_directory.c",
        "found.st_uid != user || found.st_mode & 077))",
        "found.st_uid != user))",
        ("test_linux_bootstrap.py::test_a_directory_that_others_can_enter_is_refused",),
    ),
    Fault(
        "a process that nobody can tell matches a token that nobody can tell",
        "machrv/kernel/linux/waiting.py",
        "token.pidversion == self.pidversion != 0",
        "token.pidversion == self.pidversion",
        (f"{IDENTITY}::test_a_process_that_nobody_can_tell_is_nobodys_sender",),
    ),
    Fault(
        "a process is its number",
        "machrv/kernel/linux/waiting.py",
        "return token.pid == self.pid and token.pidversion == self.pidversion != 0",
        "return token.pid == self.pid",
        ("test_pid_reuse.py::test_a_request_of_the_dead_claims_nothing",),
    ),
    Fault(
        "a claim by a process without a pidversion is answered",
        "machrv/rendezvous/registry.py",
        "        if not audit_token.pidversion:\n",
        "        if audit_token.pidversion < 0:\n",
        ("test_rendezvous_registry.py::test_a_process_with_a_recycled_pid_gets_nothing",),
        ((".process.matches(audit_token)", ".process.pid == audit_token.pid"),),
    ),
    Fault(
        "whoever has the number of a process may claim what is registered for it",
        "machrv/rendezvous/registry.py",
        "not registration.process.matches(audit_token)",
        "registration.process.pid != audit_token.pid",
        ("test_pid_reuse.py::test_a_request_of_the_dead_claims_nothing",),
    ),
    Fault(
        "a requirement that cannot be evaluated is met",
        "machrv/rendezvous/verdict.py",
        'return f"it could not be evaluated ({error!r})"',
        "return None",
        ("test_launch.py::test_a_child_that_does_not_meet_its_requirement_gets_nothing",),
    ),
    Fault(
        "a client that is refused has its rights left to it",
        "machrv/rendezvous/server.py",
        "        destroy_ports(ports)\n        return None\n",
        "        return ports\n",
        ("test_launch.py::test_a_child_that_does_not_meet_its_requirement_gets_nothing",),
    ),
    Fault(
        "aio.connect and aio.initialize do not look at what the server must be",
        "machrv/aio/connecting.py",
        "    return taken(reply, what, requirement)\n",
        "    return taken(reply, what, None)\n",
        ("test_validation.py::test_a_server_is_held_against_its_requirement_on_a_loop_too",),
    ),
    Fault(
        "what a refused server has sent is kept",
        "machrv/rendezvous/client.py",
        "        message.close()\n        raise PeerRejectedError",
        "        raise PeerRejectedError",
        ("test_validation.py::test_a_server_is_held_against_its_requirement_on_a_loop_too",),
    ),
]
