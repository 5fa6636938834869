"""Two instances behind a balancer, clients that resume, and faults: what scripts/chaos runs.

    plan, position, interruptions, summary           pure, as are the next two rows: no process,
                                                     socket or clock
    lives, removals, truth                           what was published, and what was taken away
    segment, checker, verdict                        what a client received, held against that
    processes, brokers, instances, balancer          what is started and killed
    publisher, clients, stream                       what is published, received and operated on
    operations, faults, run                          the plan carried out, all of it wired
"""
