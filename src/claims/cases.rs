//! The shortest histories that once made a claim false, or shed light on one rule.

use super::failure;
use super::operation::Op::{
    Age, Connect, Delete, Keep, LoseTail, Look, Newest, Pass, Publish, PublishUnreadable, Recreate,
    Reload, Restore, Run, Save, Settle, Start, Step, Stick, Subscribe,
};
use super::history::History;
use super::operation::Op;

const CASES: [(&str, &[Op]); 13] = [
    (
        "positions were given out again between a first contact and its consumer",
        &[
            Publish(1), Keep(1), Publish(2), Start(1), Step(1), Step(1), Connect(1, 1, 3, false),
            LoseTail(1), Publish(0), Publish(0),
        ],
    ),
    (
        "what was published after a fresh start was removed before it was read",
        &[
            Start(0), Connect(0, 0, 4, false), Publish(0), Run(0), LoseTail(2), Run(0), Publish(2),
            Delete(0), Publish(0),
        ],
    ),
    (
        "what a look had named was lost, and its position given out again",
        &[
            Start(0), Run(0), Connect(0, 0, 4, false), PublishUnreadable(1), Look(0), Look(0),
            LoseTail(3), Look(0), Publish(3),
        ],
    ),
    (
        "what a contact had named was lost",
        &[
            Start(0), Run(0), Connect(0, 0, 4, false), Save, LoseTail(2), Step(0), Publish(1),
            Step(0), Restore,
        ],
    ),
    (
        "what a look had named was lost in a quiet stream",
        &[
            Start(0), Run(0), Connect(0, 0, 4, false), Publish(1), Look(0), Look(0), Look(0),
            LoseTail(1),
        ],
    ),
    (
        "a shard was given up when an epoch began",
        &[
            Start(0), Connect(0, 0, 4, false), Publish(2), Publish(2), Stick(0), Publish(0),
            Publish(1), Run(0), Recreate, Run(0), Publish(0), Publish(1),
        ],
    ),
    (
        "a client subscribes behind what a shard that was given up has missed",
        &[
            Start(0), Run(0), Connect(0, 0, 4, false), Start(0), Publish(2), Publish(0),
            Publish(1), Connect(0, 0, 0, true), Publish(0), Publish(1), Publish(0), Stick(0),
            Publish(2), Publish(0), Run(0), Publish(3), Publish(1),
        ],
    ),
    (
        "newest messages of the next life, read in this one",
        &[
            Start(0), Run(0), Publish(3), Age(2), Publish(2), Run(0), Newest(0), Recreate,
            Publish(0), Newest(0), Newest(0), Connect(2, 0, 0, true),
        ],
    ),
    (
        "an unreadable message of another branch follows what was read",
        &[
            Start(0), Run(0), Connect(0, 0, 4, false), Publish(2), Age(2), Save, Publish(2),
            Restore, Settle, LoseTail(3), Publish(1), PublishUnreadable(2), Publish(3),
        ],
    ),
    (
        "an unreadable message stands where ours stood",
        &[
            Start(0), Connect(0, 0, 4, false), Publish(2), Run(0), LoseTail(1),
            PublishUnreadable(0), Publish(1),
        ],
    ),
    (
        "the first message of a quiet start is of another branch",
        &[
            Start(0), Connect(0, 0, 4, false), Publish(1), Publish(3), Age(3), Publish(1), Settle,
            LoseTail(2), Settle, LoseTail(2), Publish(1), Publish(0), Publish(2), Delete(2),
        ],
    ),
    (
        "a client subscribes behind a loss that was told, and of which nothing follows",
        &[
            Start(0), Keep(1), Publish(0), Run(0), Pass(5), Connect(1, 0, 2, true), Publish(0),
            Publish(3), Run(0), Pass(5), Subscribe(1, 0, true),
        ],
    ),
    (
        "a client loads anew from a stream of which it knows no position",
        &[
            Start(0), Publish(1), Delete(0), Connect(0, 0, 1, true), Publish(3), Run(0), Reload(0),
        ],
    ),
];

#[test]
fn histories_that_were_false_once() {
    for (name, ops) in CASES {
        for is_durable in [false, true] {
            for log_messages in [3, 1_000] {
                let history = History { is_durable, log_messages, ops: ops.to_vec() };
                assert_eq!(failure(&history), None, "{name}");
            }
        }
    }
}
