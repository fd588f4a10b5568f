"""Forgets a right of each kind. Each is made at the line that ends with its kind, and dropped at another one."""

import os

from machrv import (
    Message,
    PortSet,
    ReceiveRight,
    RendezvousClient,
    RendezvousPort,
    RendezvousServer,
    fileport,
    take_rights,
)

kept = ReceiveRight.allocate()  # at the end

right = ReceiveRight.allocate()  # ReceiveRight
right = None
right = kept.make_send()  # SendRight
right = None
right = kept.make_send_once()  # SendOnceRight
right = None
right = PortSet.allocate()  # PortSet
right = None
with kept.make_send() as send:
    right = send.copy()  # copy
right = None
with open(os.devnull) as file:
    right = fileport(file.fileno())  # fileport
right = None
with kept.make_send() as send:
    right = RendezvousPort.from_right(send)  # registered
right = None
with RendezvousServer.get_instance() as server:
    with server.lock:
        server.register_ports_for_pid(os.getpid(), {1: kept.make_send(), 2: kept.make_send_once()})
    client = RendezvousClient.connect(server.service_name)  # claimed
    taken = client.take_send_right(1)
    client = None
    taken = None
with ReceiveRight.allocate() as inbox, inbox.make_send() as send:
    send.send(Message(1, b"", [ReceiveRight.allocate()]))
    rights = take_rights(inbox.receive())  # received
rights.clear()
