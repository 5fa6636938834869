//! What may happen in a history.

/// What happens next. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// A message is published on a channel.
    Publish(u8),
    /// One that no consumer can bring.
    PublishUnreadable(u8),
    /// One that replaces all of its channel.
    Rollup(u8),
    /// The oldest messages age away.
    Age(u8),
    /// A message is deleted, counted from the newest.
    Delete(u8),
    /// All are purged.
    Purge,
    /// All of a channel but so many are purged.
    PurgeChannel(u8, u8),
    /// The stream is set to keep so many of each channel; 0 for all.
    KeepPerChannel(u8),
    /// The same for all channels together.
    Keep(u8),
    /// The stream is saved.
    Save,
    /// It is restored from that.
    Restore,
    /// It loses its newest positions.
    LoseTail(u8),
    /// It is deleted and made again.
    Recreate,
    /// An instance starts, or starts again.
    Start(u8),
    /// The shard of an instance takes nothing from now on.
    Stick(u8),
    /// It goes on.
    Unstick(u8),
    /// An instance makes one step to a consumer, or reads one message.
    Step(u8),
    /// The consumer of an instance sends some messages.
    Send(u8, u8),
    /// It sends one to somebody else.
    SendElsewhere(u8),
    /// An instance reads what there is.
    Run(u8),
    /// It loses its connection.
    Cut(u8),
    /// It makes a step of a look.
    Look(u8),
    /// It makes a step of reading newest messages.
    Newest(u8),
    /// Time passes, in half seconds.
    Pass(u8),
    /// A client connects to an instance and subscribes, or resumes.
    Connect(u8, u8, u8, bool),
    /// A client loses its connection.
    Disconnect(u8),
    /// A client asks for a position.
    Heartbeat(u8),
    /// A client subscribes to more.
    Subscribe(u8, u8, bool),
    /// A client loads anew.
    Reload(u8),
    /// Everything comes to rest, and all is checked.
    Settle,
}
