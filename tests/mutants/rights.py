"""Faults in rights and in the order of messages."""

from __future__ import annotations

from .fault import Fault

C = "machrv/native/linux/"
REFERENCES, ORDER, DEATH = "test_linux_references.py", "test_linux_order.py", "test_linux_death.py"

FAULTS = [
    Fault(
        "MAKE_SEND goes past the limit of user references",
        f"{C}ipc_right.c",
        "    if (entry->urefs < MACH_PORT_UREFS_MAX) /* at the limit the count stays where it is, for ever */\n",
        "",
        (f"{REFERENCES}::test_no_more_are_made",),
    ),
    Fault(
        "mod_refs adds past the limit of user references",
        f"{C}ipc_right.c",
        "urefs < MACH_PORT_UREFS_MAX ? (mach_port_urefs_t)urefs : MACH_PORT_UREFS_MAX",
        "(mach_port_urefs_t)urefs",
        (f"{REFERENCES}::test_mod_refs_stops_at_the_limit",),
    ),
    Fault(
        "mod_refs takes from a count at the limit",
        f"{C}ipc_right.c",
        "if (entry->urefs == MACH_PORT_UREFS_MAX) { /* pegged",
        "if (false) { /* pegged",
        (f"{REFERENCES}::test_mod_refs_changes_nothing",),
    ),
    Fault(
        "deallocate takes from a count at the limit",
        f"{C}ipc_right.c",
        "    if (entry->urefs < MACH_PORT_UREFS_MAX) /* a count at the limit has been lost track of */\n",
        "",
        (f"{REFERENCES}::test_deallocate_takes_none",),
    ),
    Fault(
        "MOVE_SEND takes from a count at the limit",
        f"{C}ipc_object.c",
        "        return;\n    if (entry->urefs > 1) {\n        if (entry->urefs < MACH_PORT_UREFS_MAX)\n",
        "        return;\n    if (entry->urefs > 1) {\n",
        (f"{REFERENCES}::test_a_move_takes_none",),
    ),
    Fault(
        "the move of a dead name takes from a count at the limit",
        f"{C}ipc_object.c",
        "    if (move && entry->urefs > 1) {\n        if (entry->urefs < MACH_PORT_UREFS_MAX)\n",
        "    if (move && entry->urefs > 1) {\n",
        (f"{REFERENCES}::test_a_dead_name_at_the_limit",),
    ),
    Fault(
        "a dead name has no reference for the request on a receive right that went",
        f"{C}ipc_right.c",
        "        entry->type = DEAD_NAME;\n        if (request.notify.kind)\n            ipc_right_add_urefs(entry);\n",
        "        entry->type = DEAD_NAME;\n",
        (f"{DEATH}::test_a_watched_name_whose_receive_right_goes_has_a_reference_more",),
    ),
    Fault(
        "a dead name has no reference for its request",
        f"{C}ipc_right.c",
        "    if (request.notify.kind) {\n        ipc_right_add_urefs(entry);\n",
        "    if (request.notify.kind) {\n",
        (
            f"{DEATH}::test_dead_name_notifications_when_the_receiver_is_killed",
            f"{DEATH}::test_a_notification_to_a_port_in_a_third_process",
        ),
    ),
    Fault(
        "a message overtakes those that wait on several ends",
        f"{C}ipc_mqueue.c",
        "if (ready == 1 && port->nqueued == 0) {",
        "if (ready == 1) {",
        (f"{ORDER}::test_what_is_sent_while_a_lost_right_waits_to_be_told_comes_behind_it",),
    ),
    Fault(
        "whoever is seen first is served first, though others wait",
        f"{C}ipc_mqueue.c",
        "if (ready == 1 && port->nqueued == 0) {",
        "if (ready == 1) {",
        (f"{ORDER}::test_what_is_sent_while_others_wait_on_several_rights_comes_behind_them",),
        (
            (
                "        if (oldest(port) && oldest(port)->stamp <= port->scanned)\n            return oldest(port);\n",
                "",
            ),
        ),
    ),
    Fault(
        "the youngest message comes first",
        f"{C}ipc_mqueue.c",
        "if (other->stamp > stamp || (other->stamp == stamp && other->fd > end->fd))",
        "if (other->stamp < stamp)",
        (f"{ORDER}::test_what_is_sent_one_after_the_other_is_received_so",),
    ),
    Fault(
        "what a socket held before there were time stamps counts as new",
        f"{C}ipc_mqueue.c",
        "else if (end->late || !head.stamp)",
        "else if (!head.stamp)",
        (f"{ORDER}::test_what_is_sent_one_after_the_other_is_received_so",),
    ),
    Fault(
        "of a set of more than four members none is seen",
        f"{C}ipc_pset.c",
        "        count = epoll_wait(pset->epoll->fd, events, 64, 0);",
        "        count = 0;",
        (f"{ORDER}::test_every_member_of_a_large_set_is_seen",),
    ),
    Fault(
        "a set serves its members in turn",
        f"{C}ipc_pset.c",
        "    while (at > first && stamps[at - 1 - first] > stamp) {",
        "    while (at > 0 && stamps[0] > stamp && at > first) {",
        (f"{ORDER}::test_every_member_of_a_large_set_is_seen",),
    ),
    Fault(
        "NO_SENDERS with a sync above the make-send count is sent before any sender was made",
        f"{C}ipc_notify.c",
        "!senders && sync <= port->mscount",
        "!senders",
        (f"{DEATH}::test_no_senders_above_the_make_send_count_waits_for_a_sender",),
    ),
    Fault(
        "NO_SENDERS does not wait for messages that were sent",
        f"{C}ipc_end.c",
        "= !hung || packet_waiting(end->fd) > 0;",
        "= !hung;",
        (f"{DEATH}::test_no_senders_waits_for_the_messages_that_were_sent",),
    ),
    Fault(
        "a right in a message that is not sent yet does not count as a sender",
        f"{C}ipc_end.c",
        "    if (port->carried > 0 || (entry &&",
        "    if ((entry &&",
        ("test_sender_gone.py::test_a_child_sends_its_result_and_exits",),
    ),
    Fault(
        "a send-once right that was not used is not told",
        f"{C}ipc_right.c",
        "        ipc_notify_send_once(task, &was);\n",
        "        was.port ? ipc_port_release(was.port) : ipc_socket_release(was.socket);\n",
        ("test_linux_conformance.py::test_two_processes_answer_as_xnu",),
    ),
    Fault(
        "a send-once right sends twice",
        f"{C}ipc_copyout.c",
        "if (end->kind == KIND_ONCE || (end->port->turns && end->peer))",
        "if (end->port->turns && end->peer)",
        ("test_linux_hostile_packets.py::test_a_send_once_right_sends_once",),
    ),
    Fault(
        "a port that is sent to itself is lost, and not destroyed",
        f"{C}ipc_copyin.c",
        "        kmsg->circular = true;\n",
        "        (void)to;\n",
        ("test_linux_receive_rights.py::test_a_port_sent_to_itself_is_destroyed",),
    ),
    Fault(
        "a message that does not fit stays lost: what it would have moved is gone",
        f"{C}ipc_send.c",
        "    case -EAGAIN:\n    case -EINTR:\n        pseudo_receive(kmsg);\n",
        "    case -EAGAIN:\n    case -EINTR:\n        destroy(kmsg, true);\n",
        ("test_aio_cancel.py::test_a_send_that_is_cancelled_has_sent_or_has_not",),
    ),
    Fault(
        "a large message is destroyed where it should wait",
        f"{C}ipc_copyout.c",
        "if (peeked && stays(",
        "if (false && stays(",
        ("test_linux_memory.py::test_a_message_larger_than_the_buffer_waits_or_is_destroyed",),
    ),
    Fault(
        "a flood over one right is in front of everybody else's",
        f"{C}ipc_mqueue.c",
        "if (!has_one && !enqueue(end, turn))",
        "if (!enqueue(end, turn))",
        (f"{ORDER}::test_processes_take_turns_where_that_is_asked_for",),
    ),
]
