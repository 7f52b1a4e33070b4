//! The graph of recorded operations, and the backward sweep through it.
//!
//! Operations run as they are called. Where an input requires a gradient they also record a `Node` with a
//! closure that turns the gradients of its outputs into those of its inputs. Parameters are leaves: their
//! gradients go to the `Sink`, which may defer work (see `sink.rs`).

use crate::ops::add_assign;
use crate::profile::{self, Part};
use crate::sink::Sink;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Names a tensor whose gradient is collected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Leaf(u64);

/// Where a tensor came from, as far as gradients care.
#[derive(Clone)]
pub enum Origin {
    None,
    Leaf(Leaf),
    /// Output number `.1` of a node.
    Node(Arc<Node>, usize),
}

/// Takes the gradients of a node's outputs (`None` where nothing used one) and returns those of its inputs.
pub type Backward = Box<dyn FnOnce(&[Option<Tensor>], &mut Sink) -> Vec<Option<Tensor>> + Send>;

/// One recorded operation.
pub struct Node {
    id: u64,
    outputs: usize,
    part: Part,
    /// Taken when the sweep reaches this node, which frees what it kept.
    rest: Mutex<Option<(Vec<Origin>, Backward)>>,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Counts up over all threads. Within one thread later ids are larger, which is all that the sweep needs.
fn next_id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Leaf {
    /// A leaf unlike all others.
    #[allow(clippy::new_without_default)] // a default that differs at every call would surprise
    pub fn new() -> Self {
        Leaf(next_id())
    }
}

/// Whether any of `inputs` requires a gradient, so that an operation on them must be recorded.
pub fn recording(inputs: &[&Tensor]) -> bool {
    inputs.iter().any(|x| x.requires_grad())
}

/// Marks `outputs` as computed from `inputs` by an operation whose gradient is `backward`.
pub fn record(
    inputs: &[&Tensor],
    outputs: Vec<Tensor>,
    backward: impl FnOnce(&[Option<Tensor>], &mut Sink) -> Vec<Option<Tensor>> + Send + 'static,
) -> Vec<Tensor> {
    let origins = inputs.iter().map(|x| x.origin.clone()).collect();
    let rest = Mutex::new(Some((origins, Box::new(backward) as Backward)));
    let node = Arc::new(Node { id: next_id(), outputs: outputs.len(), part: profile::here(), rest });
    let link = |(i, x): (usize, Tensor)| x.with_origin(Origin::Node(node.clone(), i));
    outputs.into_iter().enumerate().map(link).collect()
}

/// `record` for the common case of one output.
pub fn record1(
    inputs: &[&Tensor],
    output: Tensor,
    backward: impl FnOnce(&Tensor, &mut Sink) -> Vec<Option<Tensor>> + Send + 'static,
) -> Tensor {
    let run = move |grads: &[Option<Tensor>], sink: &mut Sink| match &grads[0] {
        Some(grad) => backward(grad, sink),
        None => vec![],
    };
    record(inputs, vec![output], run).remove(0)
}

/// Nodes that have received some gradient, with what they received so far, by id.
type Pending = BTreeMap<u64, (Arc<Node>, Vec<Option<Tensor>>)>;

/// Sweeps back from `outputs`, each with its gradient, and leaves the gradients of all leaves in `sink`.
/// A graph can be swept once.
pub fn backward(outputs: &[(&Tensor, Tensor)], sink: &mut Sink) {
    let mut pending = Pending::new();
    for (output, grad) in outputs {
        assert_eq!(output.shape(), grad.shape(), "a gradient has the shape of its tensor");
        deliver(&output.origin, grad.clone(), &mut pending, sink);
    }
    // The latest node first: whatever used its outputs has a larger id and has been swept.
    while let Some((_, (node, grads))) = pending.pop_last() {
        let rest = node.rest.lock().expect("no panic in a gradient").take();
        let (inputs, run) = rest.expect("a graph is swept once");
        let part = node.part.backward();
        drop(node);
        let found = profile::within(part, || run(&grads, sink));
        for (origin, grad) in inputs.iter().zip(found) {
            if let Some(grad) = grad {
                deliver(origin, grad, &mut pending, sink);
            }
        }
    }
}

/// Hands `grad` to where a tensor came from.
fn deliver(origin: &Origin, grad: Tensor, pending: &mut Pending, sink: &mut Sink) {
    match origin {
        Origin::None => {}
        Origin::Leaf(leaf) => sink.add(*leaf, &grad),
        Origin::Node(node, index) => {
            let slot = pending.entry(node.id).or_insert_with(|| (node.clone(), vec![None; node.outputs]));
            let sum = match slot.1[*index].take() {
                Some(mut before) => {
                    add_assign(&mut before, &grad);
                    before
                }
                None => grad,
            };
            slot.1[*index] = Some(sum);
        }
    }
}
