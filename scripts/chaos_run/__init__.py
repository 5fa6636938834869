"""Two instances behind a balancer, clients that resume, and faults: what scripts/chaos runs.

    plan, position, truth, checker, interruptions, summary   pure: no process, socket or clock
    processes, brokers, instances, balancer                  what is started and killed
    publisher, clients                                       what is published and received
    faults, run                                              the plan carried out, all of it wired
"""
