"""Rendezvous: a parent registers port rights for a child that it has launched, and the child asks for them.

    names       where a server is found
    protocol    what a request and a reply look like
    reply       the part of it that most replies are
    port        what is registered under a key
    registry    which process may claim which ports
    policy      whether a peer is who it must be
    server      the parent's end
    client      the child's end, the short way
    direct      the same, where no name is looked up
    steps       the child's end, step by step, where that does not do

A child imports the client's modules only; import what you need from the module that has it, or from `machrv`.
"""
