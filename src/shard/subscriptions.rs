//! Who is subscribed to what: exact names in a map, patterns in a trie, and each connection's own
//! list.
//!
//! A topic is a subscribed text, exact or pattern. Every subscription is an entry in its topic's
//! list and one in its connection's, and each knows the other's place, so that subscribing and
//! unsubscribing cost the same whatever the topic's size. Memory: 16 bytes a subscription and
//! the list's slack, and about 150 bytes and the name a topic. Bound: channels per connection
//! times connections.

use std::collections::HashMap;
use std::rc::Rc;

use slab::Slab;

use super::scan_budget::ScanBudget;
use crate::channel::Pattern;
use crate::heap::{allocation_bytes, table_bytes};

/// A connection in a topic's list.
#[derive(Debug, Clone, Copy)]
pub struct Subscriber {
    /// The connection's index in the shard.
    pub connection: u32,
    slot: u32,
}

/// A topic in a connection's list.
#[derive(Debug, Clone, Copy)]
struct Subscription {
    topic: u32,
    place: u32,
}

/// The topics of one connection at one moment, in order.
#[derive(Debug)]
pub struct Topics {
    topics: Vec<u32>,
}

#[derive(Debug)]
struct Topic {
    text: Rc<str>,
    is_wildcard: bool,
    subscribers: Vec<Subscriber>,
}

/// All subscriptions of a shard.
#[derive(Debug, Default)]
pub struct SubscriptionIndex {
    topics: Slab<Topic>,
    by_text: HashMap<Rc<str>, u32>,
    wildcards: Node,
    connections: Vec<Vec<Subscription>>,
    total: usize,
    /// Heap of the lists, texts and trie nodes; the tables are counted when asked.
    heap_bytes: usize,
}

impl SubscriptionIndex {
    /// Subscribes a connection; false if it was subscribed already.
    /// Cost: the connection's own list, not the topic's.
    pub fn subscribe(&mut self, connection: u32, pattern: &Pattern) -> bool {
        let topic = self.topic_of(pattern);
        let index = connection as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, Vec::new);
        }
        let own = &mut self.connections[index];
        if own.iter().any(|subscription| subscription.topic == topic) {
            return false;
        }
        let subscribers = &mut self.topics[topic as usize].subscribers;
        let before = list_bytes(own) + list_bytes(subscribers);
        own.push(Subscription { topic, place: subscribers.len() as u32 });
        subscribers.push(Subscriber { connection, slot: own.len() as u32 - 1 });
        self.heap_bytes += list_bytes(own) + list_bytes(subscribers) - before;
        self.total += 1;
        true
    }

    /// Ends a subscription; false if there was none. `text` is the text that was subscribed.
    pub fn unsubscribe(&mut self, connection: u32, text: &str) -> bool {
        let Some(&topic) = self.by_text.get(text) else { return false };
        let Some(own) = self.connections.get(connection as usize) else { return false };
        let Some(slot) = own.iter().position(|subscription| subscription.topic == topic) else {
            return false;
        };
        self.remove_slot(connection, slot);
        true
    }

    /// Ends all subscriptions of a connection and frees its list.
    pub fn remove_connection(&mut self, connection: u32) {
        while let Some(last) = self.count_of(connection).checked_sub(1) {
            self.remove_slot(connection, last);
        }
        if let Some(own) = self.connections.get_mut(connection as usize) {
            self.heap_bytes -= list_bytes(own);
            *own = Vec::new();
        }
    }

    /// How many subscriptions a connection has.
    pub fn count_of(&self, connection: u32) -> usize {
        self.connections.get(connection as usize).map_or(0, Vec::len)
    }

    /// The texts a connection is subscribed to, in no particular order.
    pub fn texts_of(&self, connection: u32) -> impl Iterator<Item = &str> {
        let own = self.connections.get(connection as usize).map_or(&[][..], Vec::as_slice);
        own.iter().map(|subscription| &*self.topics[subscription.topic as usize].text)
    }

    /// Whether the connection is subscribed to exactly this text.
    pub fn is_subscribed(&self, connection: u32, text: &str) -> bool {
        self.by_text.get(text).is_some_and(|&topic| {
            self.connections
                .get(connection as usize)
                .is_some_and(|own| own.iter().any(|subscription| subscription.topic == topic))
        })
    }

    /// What the connection is subscribed to now, to be compared with many channels. Cost: a sort of
    /// its own list.
    pub fn subscribed(&self, connection: u32) -> Topics {
        let own = self.connections.get(connection as usize).map_or(&[][..], Vec::as_slice);
        let mut topics: Vec<u32> = own.iter().map(|subscription| subscription.topic).collect();
        topics.sort_unstable();
        Topics { topics }
    }

    /// Whether one of `subscribed`, exact or wildcard, matches `channel`; a step of `budget` is
    /// charged for each topic that does, whoever is subscribed to it.
    pub fn has_match(&self, subscribed: &Topics, channel: &str, budget: &mut ScanBudget) -> bool {
        if subscribed.topics.is_empty() {
            return false;
        }
        let mut found = false;
        self.for_each_topic(channel, &mut |topic| {
            budget.charge(1);
            found = found || subscribed.topics.binary_search(&topic).is_ok();
        });
        found
    }

    /// Calls `each` with the subscribers of every topic that matches `channel`. A connection
    /// that matches twice is in two lists.
    pub fn for_each_match(&self, channel: &str, each: &mut impl FnMut(&[Subscriber])) {
        self.for_each_topic(channel, &mut |topic| {
            each(&self.topics[topic as usize].subscribers);
        });
    }

    /// Heap of the whole index.
    pub fn memory_bytes(&self) -> usize {
        self.heap_bytes
            + allocation_bytes(self.topics.capacity() * size_of::<Option<Topic>>())
            + allocation_bytes(self.connections.capacity() * size_of::<Vec<Subscription>>())
            + table_bytes(self.by_text.capacity(), size_of::<(Rc<str>, u32)>())
    }

    /// What the subscriptions of one connection take: its own list and its places in the topics'.
    pub fn memory_bytes_of(&self, connection: u32) -> usize {
        self.connections
            .get(connection as usize)
            .map_or(0, |own| list_bytes(own) + own.len() * size_of::<Subscriber>())
    }

    /// Subscriptions of all connections.
    pub fn total(&self) -> usize {
        self.total
    }

    fn for_each_topic(&self, channel: &str, each: &mut impl FnMut(u32)) {
        if let Some(&topic) = self.by_text.get(channel) {
            each(topic);
        }
        if !self.wildcards.is_empty() {
            self.wildcards.for_each_match(Some(channel), each);
        }
    }

    fn topic_of(&mut self, pattern: &Pattern) -> u32 {
        if let Some(&topic) = self.by_text.get(pattern.as_str()) {
            return topic;
        }
        let text: Rc<str> = pattern.as_str().into();
        let is_wildcard = pattern.is_wildcard();
        let topic = self.topics.insert(Topic {
            text: Rc::clone(&text),
            is_wildcard,
            subscribers: Vec::new(),
        }) as u32;
        self.heap_bytes += text_bytes(&text);
        if is_wildcard {
            self.wildcards.insert(Some(&text), topic, &mut self.heap_bytes);
        }
        self.by_text.insert(text, topic);
        topic
    }

    fn remove_slot(&mut self, connection: u32, slot: usize) {
        let own = &mut self.connections[connection as usize];
        let removed = own.swap_remove(slot);
        if let Some(moved) = own.get(slot) {
            let topic = &mut self.topics[moved.topic as usize];
            topic.subscribers[moved.place as usize].slot = slot as u32;
        }
        let subscribers = &mut self.topics[removed.topic as usize].subscribers;
        subscribers.swap_remove(removed.place as usize);
        if let Some(moved) = subscribers.get(removed.place as usize) {
            self.connections[moved.connection as usize][moved.slot as usize].place = removed.place;
        }
        if subscribers.capacity() > 32 && subscribers.len() < subscribers.capacity() / 4 {
            let before = list_bytes(subscribers);
            subscribers.shrink_to(subscribers.len() * 2);
            self.heap_bytes -= before - list_bytes(subscribers);
        }
        if subscribers.is_empty() {
            self.heap_bytes -= list_bytes(subscribers);
            let topic = self.topics.remove(removed.topic as usize);
            self.by_text.remove(&topic.text);
            if topic.is_wildcard {
                self.wildcards.remove(Some(&topic.text), &mut self.heap_bytes);
            }
            self.heap_bytes -= text_bytes(&topic.text);
        }
        self.total -= 1;
    }
}

fn list_bytes<T>(list: &Vec<T>) -> usize {
    allocation_bytes(list.capacity() * size_of::<T>())
}

/// The shared text of a topic, behind its two counts.
fn text_bytes(text: &str) -> usize {
    allocation_bytes(2 * size_of::<usize>() + text.len())
}

/// A node of the trie over the tokens of patterns.
#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    here: Option<u32>,
    tail: Option<u32>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_none() && self.tail.is_none()
    }

    fn table_bytes(&self) -> usize {
        table_bytes(self.children.capacity(), size_of::<(Box<str>, Self)>())
    }

    /// `rest` is what follows of the pattern; `None` at its end. What it allocates is added to
    /// `heap_bytes`.
    fn insert(&mut self, rest: Option<&str>, topic: u32, heap_bytes: &mut usize) {
        let Some(rest) = rest else {
            self.here = Some(topic);
            return;
        };
        let (token, rest) = split_token(rest);
        match token {
            ">" => self.tail = Some(topic),
            "*" => {
                if self.any.is_none() {
                    *heap_bytes += allocation_bytes(size_of::<Self>());
                }
                self.any.get_or_insert_default().insert(rest, topic, heap_bytes);
            }
            token => {
                let before = self.table_bytes();
                if !self.children.contains_key(token) {
                    *heap_bytes += allocation_bytes(token.len());
                    self.children.insert(token.into(), Self::default());
                }
                *heap_bytes = *heap_bytes + self.table_bytes() - before;
                if let Some(child) = self.children.get_mut(token) {
                    child.insert(rest, topic, heap_bytes);
                }
            }
        }
    }

    /// Takes a pattern out, and from `heap_bytes` what that frees.
    fn remove(&mut self, rest: Option<&str>, heap_bytes: &mut usize) {
        let Some(rest) = rest else {
            self.here = None;
            return;
        };
        let (token, rest) = split_token(rest);
        match token {
            ">" => self.tail = None,
            "*" => {
                if let Some(any) = &mut self.any {
                    any.remove(rest, heap_bytes);
                    if any.is_empty() {
                        *heap_bytes -= any.table_bytes() + allocation_bytes(size_of::<Self>());
                        self.any = None;
                    }
                }
            }
            token => {
                if let Some(child) = self.children.get_mut(token) {
                    child.remove(rest, heap_bytes);
                    if child.is_empty() {
                        let before = self.table_bytes();
                        let freed = self.children.remove(token).map_or(0, |it| it.table_bytes());
                        *heap_bytes -= freed + allocation_bytes(token.len());
                        *heap_bytes = *heap_bytes + self.table_bytes() - before;
                    }
                }
            }
        }
    }

    fn for_each_match(&self, rest: Option<&str>, each: &mut impl FnMut(u32)) {
        let Some(rest) = rest else {
            if let Some(topic) = self.here {
                each(topic);
            }
            return;
        };
        if let Some(topic) = self.tail {
            each(topic);
        }
        let (token, rest) = split_token(rest);
        if let Some(any) = &self.any {
            any.for_each_match(rest, each);
        }
        if let Some(child) = self.children.get(token) {
            child.for_each_match(rest, each);
        }
    }
}

fn split_token(text: &str) -> (&str, Option<&str>) {
    match text.split_once('.') {
        Some((token, rest)) => (token, Some(rest)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[derive(Debug, Clone)]
    enum Step {
        Subscribe(u32, String),
        Unsubscribe(u32, String),
        Leave(u32),
    }

    fn text() -> impl Strategy<Value = String> {
        let token = prop_oneof![Just("a"), Just("b"), Just("*")];
        (proptest::collection::vec(token, 1..4), any::<bool>()).prop_map(|(tokens, tail)| {
            let mut text = tokens.join(".");
            if tail {
                text.push_str(".>");
            }
            text
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u32..8, text()).prop_map(|(conn, text)| Step::Subscribe(conn, text)),
            3 => (0_u32..8, text()).prop_map(|(conn, text)| Step::Unsubscribe(conn, text)),
            1 => (0_u32..8).prop_map(Step::Leave),
        ]
    }

    fn matches(index: &SubscriptionIndex, channel: &str) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        index.for_each_match(channel, &mut |subscribers| {
            found.extend(subscribers.iter().map(|subscriber| subscriber.connection));
        });
        found
    }

    proptest! {
        #[test]
        fn behaves_as_a_list_of_patterns(steps in proptest::collection::vec(step(), 0..120)) {
            let mut index = SubscriptionIndex::default();
            let mut model: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Subscribe(conn, text) => {
                        let pattern = Pattern::parse(&text, 256).unwrap();
                        let is_new = model.entry(conn).or_default().insert(text);
                        prop_assert_eq!(index.subscribe(conn, &pattern), is_new);
                    }
                    Step::Unsubscribe(conn, text) => {
                        let was = model.entry(conn).or_default().remove(&text);
                        prop_assert_eq!(index.is_subscribed(conn, &text), was);
                        prop_assert_eq!(index.unsubscribe(conn, &text), was);
                        prop_assert!(!index.is_subscribed(conn, &text));
                    }
                    Step::Leave(conn) => {
                        model.remove(&conn);
                        index.remove_connection(conn);
                    }
                }
                for channel in ["a", "a.b", "b.a", "a.a.a", "a.b.a.b", "c"] {
                    let expected: BTreeSet<u32> = model
                        .iter()
                        .filter(|(_, texts)| texts.iter().any(|text| {
                            Pattern::parse(text, 256).unwrap().matches(channel)
                        }))
                        .map(|(conn, _)| *conn)
                        .collect();
                    for conn in 0..8 {
                        let has = expected.contains(&conn);
                        let subscribed = index.subscribed(conn);
                        let found = index.has_match(&subscribed, channel, &mut ScanBudget::new(9));
                        prop_assert_eq!(found, has);
                    }
                    prop_assert_eq!(matches(&index, channel), expected);
                }
            }
            for conn in 0..8 {
                let texts: BTreeSet<String> = index.texts_of(conn).map(str::to_owned).collect();
                prop_assert_eq!(texts, model.remove(&conn).unwrap_or_default());
                index.remove_connection(conn);
            }
            prop_assert_eq!(index.total(), 0);
            prop_assert!(index.topics.is_empty() && index.by_text.is_empty());
            prop_assert!(index.wildcards.is_empty());
            prop_assert_eq!(index.heap_bytes, index.wildcards.table_bytes(), "all is released");
        }
    }
}
