"""Faults in what is opened, closed, mapped and removed."""

from __future__ import annotations

from .fault import Fault

C = "machrv/native/linux/"
INHERITS = "test_linux_fork.py::test_a_program_that_is_started_inherits_nothing"
ODD = "test_linux_hostile_packets.py::test_an_odd_packet_is_one_message_or_one_error"
LIES = "test_linux_hostile_packets.py::test_a_packet_that_lies_costs_its_sender_the_right"
NAMES = "test_linux_bootstrap.py"

FAULTS = [
    Fault(
        "a message that lost descriptors for want of room is taken for whole",
        f"{C}packet.c",
        "message.msg_flags & MSG_CTRUNC ? PACKET_LOST : PACKET_WHOLE",
        "PACKET_WHOLE",
        ("test_linux_exhaustion.py::test_a_message_that_lost_rights_is_not_taken_for_whole_without_pidfds_either",),
    ),
    Fault(
        "what a look installed is not closed",
        f"{C}packet.c",
        "                close_later(one);\n            }\n        }\n    }\n    if ((size_t)got",
        "                (void)one;\n            }\n        }\n    }\n    if ((size_t)got",
        ("test_linux_hostile_bundles.py::test_packets_from_nobody",),
    ),
    Fault(
        "what a message brings outlives exec: no CLOEXEC",
        f"{C}packet.c",
        "got = receive_surely(fd, &message, MSG_CMSG_CLOEXEC);",
        "got = receive_surely(fd, &message, 0);",
        (INHERITS,),
    ),
    Fault(
        "who looked a port up outlives exec: no CLOEXEC",
        f"{C}ipc_accept.c",
        "accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC)",
        "accept4(listener->fd, NULL, NULL, 0)",
        (INHERITS,),
    ),
    Fault(
        "the ends of a right outlive exec: no CLOEXEC",
        f"{C}ipc_end.c",
        "socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)",
        "socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends)",
        (INHERITS,),
    ),
    Fault(
        "a fileport's copy outlives exec: no CLOEXEC",
        f"{C}fileport.c",
        "{\n    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);\n    if (copy < 0)\n        return -errno;\n    packet_note",
        "{\n    int copy = fcntl(fd, F_DUPFD, 3);\n    if (copy < 0)\n        return -errno;\n    packet_note",
        (INHERITS,),
    ),
    Fault(
        "a body that is smaller than the message says is mapped",
        f"{C}ipc_incoming.c",
        "size <= 0 || (uint64_t)size < said ||",
        "size <= 0 ||",
        (LIES,),
        (("    in->length = (size_t)size;\n", "    in->length = (size_t)size < said ? said : (size_t)size;\n"),),
    ),
    Fault(
        "memory that is smaller than the message says is mapped",
        f"{C}ipc_copyout.c",
        "memory_sealed_size(right->socket->fd) != size ||",
        "memory_sealed_size(right->socket->fd) < 0 ||",
        (ODD,),
    ),
    Fault(
        "memory that its holder may cut short is mapped",
        f"{C}vm.c",
        "needed = F_SEAL_SHRINK | F_SEAL_WRITE",
        "needed = F_SEAL_WRITE",
        (ODD,),
    ),
    Fault(
        "memory that its holder may change is mapped",
        f"{C}vm.c",
        "needed = F_SEAL_SHRINK | F_SEAL_WRITE",
        "needed = F_SEAL_SHRINK",
        (ODD,),
    ),
    Fault(
        "a descriptor may be left over in a packet",
        f"{C}ipc_incoming.c",
        "        if (!kinds[i])\n            return -EBADMSG;\n",
        "        if (!kinds[i])\n            kinds[i] = KIND_MEMORY;\n",
        (LIES,),
    ),
    Fault(
        "one descriptor may be used twice",
        f"{C}ipc_incoming.c",
        "|| kinds[number - 1] || !kind)",
        "|| !kind)",
        (LIES,),
    ),
    Fault(
        "a slot may lie beyond the descriptors",
        f"{C}ipc_incoming.c",
        "number == 0 || number > (uint32_t)in->slots ||",
        "number == 0 || number > MACHRV_MAX_FDS ||",
        (LIES,),
    ),
    Fault(
        "what is not read of a packet is not closed",
        f"{C}packet.c",
        "    close_all_later(packet->fds, packet->nfds);\n    packet->nfds = 0;\n",
        "    packet->nfds = 0;\n",
        (LIES,),
    ),
    Fault(
        "an end that is refused is not closed",
        f"{C}ipc_transit.c",
        "refused:\n    close_later(fd);\n    return error == -EINVAL",
        "refused:\n    return error == -EINVAL",
        ("test_linux_hostile_bundles.py::test_a_receive_right_that_is_none",),
    ),
    Fault(
        "a descriptor that is given up is never closed",
        f"{C}closing.c",
        "    close(fd); /* never again",
        "    (void)fd; /* never again",
        (LIES,),
    ),
    Fault(
        "a process that was forked has its parent's rights",
        f"{C}task.c",
        "            ipc_task_abandon(tasks[i]); /* whoever was inside is not here */\n",
        "            pthread_mutex_init(&tasks[i]->lock, NULL);\n",
        ("test_linux_fork.py::test_the_child_has_an_empty_space_and_no_socket",),
        (
            (
                "static void ipc_task_abandon(struct ipc_task *task)\n{",
                "__attribute__((unused)) static void ipc_task_abandon(struct ipc_task *task)\n{",
            ),
        ),
    ),
    Fault(
        "a bootstrap name is removed though it is somebody else's by now",
        f"{C}bootstrap_entry.c",
        "entry_link(directory, file, found) == 0 && strcmp(found, target) == 0",
        "entry_link(directory, file, found) == 0",
        (f"{NAMES}::test_a_name_that_is_somebody_elses_by_now_stays",),
    ),
    Fault(
        "a listener is taken though its file is in another directory",
        f"{C}bootstrap_name.c",
        "strlen(directory.path) == before && memcmp(directory.path, address, before) == 0",
        "before",
        (f"{NAMES}::test_a_name_in_another_directory_does_not_come_along",),
    ),
    Fault(
        "a look-up follows a link to a listener outside the directory",
        f"{C}bootstrap_entry.c",
        "fstatat(directory->fd, file, &found, AT_SYMLINK_NOFOLLOW))",
        "fstatat(directory->fd, file, &found, 0))",
        (f"{NAMES}::test_a_link_that_leads_out_of_the_directory",),
    ),
    Fault(
        "a name whose owner lives is stale",
        f"{C}bootstrap_entry.c",
        "    return error == ECONNREFUSED;\n",
        "    return error == ECONNREFUSED || error == EPROTOTYPE;\n",
        (f"{NAMES}::test_of_many_who_want_a_name_one_gets_it",),
    ),
    Fault(
        "a launch whose process is gone before it is registered keeps the rights",
        "machrv/rendezvous/launch.py",
        "            except ProcessGoneError:\n                pass",
        "            except ProcessGoneError:\n                return process",
        ("test_launch.py::test_a_child_that_was_waited_for_before_it_is_registered_is_no_failure",),
        (
            (
                "        return process\n    finally:\n        destroy_ports(owned)",
                "        destroy_ports(owned)\n        return process\n    except Exception:\n        destroy_ports(owned)\n        raise",
            ),
        ),
    ),
    Fault(
        "a child that cannot be registered lives on",
        "machrv/rendezvous/launch.py",
        "                with process:  # Closes its pipes and waits for it.\n                    process.kill()\n                raise\n",
        "                raise\n",
        ("test_launch.py::test_a_child_that_cannot_be_registered_is_killed",),
    ),
    Fault(
        "what a child did not claim is kept when it exits",
        "machrv/rendezvous/registry.py",
        "            del self._registrations[pid]\n        self._end([registration])\n",
        "            del self._registrations[pid]\n        self._unpin(registration)\n",
        ("test_rendezvous_server.py::test_a_child_that_exits_unclaimed_leaves_nothing",),
    ),
]
