//! An index of prefixes: a radix tree that finds all prefixes of a key in one walk along the key,
//! however many there are. Nothing here recurses: a peer chooses the depth.

use std::collections::BTreeSet;

/// Who waits.
pub(super) type Ticket = u64;

/// A node's place.
pub(super) type NodeId = usize;

const ROOT: NodeId = 0;

/// The prefixes that are waited for.
#[derive(Debug)]
pub(super) struct PrefixIndex {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
}

#[derive(Debug, Default)]
struct Node {
    parent: NodeId,
    /// What follows the parent's prefix; empty at the root alone.
    label: Box<[u8]>,
    /// In the order of their labels, no two of which begin with the same byte.
    children: Vec<NodeId>,
    /// Who waits for this prefix, in the order in which they came.
    tickets: BTreeSet<Ticket>,
}

impl Default for PrefixIndex {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], free: Vec::new() }
    }
}

impl PrefixIndex {
    /// How many nodes there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    fn edit(&mut self, id: NodeId, edit: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(id) {
            edit(node);
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        match self.free.pop() {
            Some(id) => {
                self.edit(id, |place| *place = node);
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    /// The child of `id` whose label begins with `first`, or the place where it would be.
    fn child(&self, id: NodeId, first: u8) -> Result<NodeId, usize> {
        let children = self.node(id).map(|node| node.children.as_slice()).unwrap_or_default();
        let first_of = |child: &NodeId| self.node(*child).and_then(|node| node.label.first());
        let place = children.binary_search_by(|child| first_of(child).cmp(&Some(&first)));
        place.map(|place| children.get(place).copied().unwrap_or(ROOT))
    }

    /// Adds somebody who waits for `prefix`; returns where, to be removed there.
    pub(super) fn insert(&mut self, prefix: &[u8], ticket: Ticket) -> NodeId {
        let (mut at, mut rest) = (ROOT, prefix);
        while let Some(first) = rest.first() {
            match self.child(at, *first) {
                Ok(child) => {
                    let shared = self.shared(child, rest);
                    at = self.split(child, shared);
                    rest = rest.get(shared..).unwrap_or_default();
                }
                Err(place) => {
                    let leaf = self.add(Node { parent: at, label: rest.into(), ..Node::default() });
                    self.edit(at, |node| node.children.insert(place, leaf));
                    (at, rest) = (leaf, &[]);
                }
            }
        }
        self.edit(at, |node| _ = node.tickets.insert(ticket));
        at
    }

    /// How many bytes a node's label shares with `rest`.
    fn shared(&self, id: NodeId, rest: &[u8]) -> usize {
        let label = self.node(id).map(|node| &*node.label).unwrap_or_default();
        label.iter().zip(rest).take_while(|(one, other)| one == other).count()
    }

    /// The node that ends after `shared` bytes of the label of `id`: itself, or a new one above it.
    fn split(&mut self, id: NodeId, shared: usize) -> NodeId {
        let Some(node) = self.node(id) else { return ROOT };
        let Some((above, below)) = node.label.split_at_checked(shared) else { return id };
        if below.is_empty() {
            return id;
        }
        let (parent, below) = (node.parent, Box::from(below));
        let (label, children) = (Box::from(above), vec![id]);
        let middle = self.add(Node { parent, label, children, ..Node::default() });
        self.replace_child(parent, id, Some(middle));
        self.edit(id, |node| (node.parent, node.label) = (middle, below));
        middle
    }

    fn replace_child(&mut self, parent: NodeId, child: NodeId, by: Option<NodeId>) {
        self.edit(parent, |node| {
            let Some(place) = node.children.iter().position(|one| *one == child) else { return };
            match (by, node.children.get_mut(place)) {
                (Some(by), Some(slot)) => *slot = by,
                _ => drop(node.children.remove(place)),
            }
        });
    }

    /// Removes somebody who was added at `id`.
    pub(super) fn remove(&mut self, id: NodeId, ticket: Ticket) {
        self.edit(id, |node| _ = node.tickets.remove(&ticket));
        let above = self.tidy(id);
        self.tidy(above);
    }

    /// Takes a node out that nobody needs any more; returns the one above it.
    fn tidy(&mut self, id: NodeId) -> NodeId {
        let Some(node) = self.node(id).filter(|node| node.tickets.is_empty()) else { return ROOT };
        let (parent, only) = match node.children.as_slice() {
            _ if id == ROOT => return ROOT,
            [] => (node.parent, None),
            [only] => (node.parent, Some(*only)),
            _ => return ROOT,
        };
        if let Some(only) = only {
            let above = node.label.clone();
            self.edit(only, |node| {
                node.label = [above.as_ref(), node.label.as_ref()].concat().into();
                node.parent = parent;
            });
        }
        self.replace_child(parent, id, only);
        self.edit(id, |node| *node = Node::default());
        self.free.push(id);
        parent
    }

    /// Shows `found` all who wait for a prefix of `key`, the shortest first. Returns how many nodes
    /// it passed: one for each byte of the key at the most, and one besides.
    pub(super) fn matches(&self, key: &[u8], mut found: impl FnMut(NodeId, Ticket)) -> usize {
        let (mut at, mut rest, mut passed) = (ROOT, key, 0);
        while let Some(node) = self.node(at) {
            passed += 1;
            node.tickets.iter().for_each(|ticket| found(at, *ticket));
            let child = rest.first().and_then(|first| self.child(at, *first).ok());
            let next = child.and_then(|child| Some((child, self.node(child)?)));
            let Some((child, after)) =
                next.and_then(|(child, node)| Some((child, rest.strip_prefix(&*node.label)?)))
            else {
                break;
            };
            (at, rest) = (child, after);
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &PrefixIndex, key: &[u8]) -> Vec<Ticket> {
        let mut found = Vec::new();
        index.matches(key, |_, ticket| found.push(ticket));
        found
    }

    #[test]
    fn it_finds_what_asking_every_prefix_finds_and_keeps_nothing() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut index = PrefixIndex::default();
        let mut model: Vec<(Vec<u8>, NodeId, Ticket)> = Vec::new();
        for ticket in 0..4_000 {
            let word: Vec<u8> =
                (0..random.usize(..9)).map(|_| b"ab\xFF"[random.usize(..3)]).collect();
            let mut matching = found(&index, &word);
            matching.sort_unstable();
            let expected = model.iter().filter(|(prefix, ..)| word.starts_with(prefix));
            assert_eq!(matching, expected.map(|(_, _, ticket)| *ticket).collect::<Vec<_>>());
            if random.u8(..2) == 0 || model.is_empty() {
                let node = index.insert(&word, ticket);
                model.push((word, node, ticket));
            } else {
                let (_, node, ticket) = model.remove(random.usize(..model.len()));
                index.remove(node, ticket);
            }
            assert!(index.len() <= 2 * model.len() + 1, "{} nodes", index.len());
        }
        for (_, node, ticket) in model {
            index.remove(node, ticket);
        }
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn a_walk_passes_no_more_nodes_than_the_key_has_bytes_however_many_wait() {
        let mut index = PrefixIndex::default();
        // Others that are like the key, to its last byte but one, and each a prefix of the next.
        for length in 0..300 {
            index.insert(&vec![b'a'; length], length as Ticket);
            index.insert(&[&vec![b'a'; length][..], b"b"].concat(), 1_000 + length as Ticket);
        }
        assert_eq!(index.matches(b"zzz", |_, _| {}), 1);
        assert_eq!(index.matches(b"aab", |_, _| {}), 4);
        assert_eq!(index.matches(&[b'a'; 100], |_, _| {}), 101);
    }
}
