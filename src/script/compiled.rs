//! A plan with what it needs to run for message after message: one lane's own.
use std::sync::Arc;

use super::{
    engine,
    path::Segment,
    plan::{Deopt, Outcome, Payload, Plan},
    scan::scan_batch,
};
use crate::message::{Batch, Layout, MessageRef, NodeId, Scanned, Slot};

pub(super) struct Compiled {
    plan: Plan,
    layout: Arc<Layout>,
    /// The plan's places in the layout.
    nodes: Vec<NodeId>,
    /// The members of the maps that the script may end with.
    members: Arc<Layout>,
}

impl Compiled {
    pub fn new(plan: Plan) -> Self {
        let mut members = Layout::new();
        for name in plan.members() {
            members.key(NodeId::ROOT, name);
        }
        let mut compiled = Self { plan, layout: Arc::default(), nodes: Vec::new(), members: Arc::new(members) };
        let mut layout = Layout::new();
        compiled.wants(&mut layout);
        compiled.layout = Arc::new(layout);
        compiled
    }

    /// Adds what it looks at to the layout that all steps before the next change of the payload share.
    pub fn wants(&mut self, layout: &mut Layout) {
        self.nodes.clear();
        for place in self.plan.places() {
            let node = match &place.segment {
                None => NodeId::ROOT,
                Some(Segment::Key(name)) => layout.key(self.nodes[place.parent], name),
                Some(Segment::Index(index)) => layout.item(self.nodes[place.parent], *index),
            };
            self.nodes.push(node);
        }
    }

    /// Takes the layout that `wants` added to.
    pub fn bind(&mut self, layout: &Arc<Layout>) {
        self.layout = layout.clone();
    }

    /// The members of the maps that the script may end with, as a layout: the first has the first slot after the root's.
    pub fn members(&self) -> &Arc<Layout> {
        &self.members
    }

    /// Reads the payloads of a batch, if the plan wants to know.
    pub fn scan(&self, batch: &mut Batch) {
        if self.plan.reads_json() {
            scan_batch(batch, &self.layout);
        }
    }

    /// As `Plan::map`, for a message of a batch that was scanned.
    pub fn map(&self, message: MessageRef<'_>, out: &mut Vec<u8>, index: &mut [Slot]) -> Result<Outcome, Deopt> {
        engine::begin();
        self.plan.map(message, self.payload(message)?, &self.nodes, out, index)
    }

    /// As `Plan::test`, for a message of a batch that was scanned.
    pub fn test(&self, message: MessageRef<'_>) -> Result<bool, Deopt> {
        engine::begin();
        self.plan.test(message, self.payload(message)?, &self.nodes)
    }

    fn payload<'m>(&self, message: MessageRef<'m>) -> Result<Payload<'m>, Deopt> {
        const NONE: Payload<'static> = Payload { json: None, slots: &[], depth: 0 };
        if !self.plan.reads_json() {
            return Ok(NONE);
        }
        let document = message.document().filter(|document| Arc::ptr_eq(document.layout, &self.layout)).ok_or(Deopt)?;
        match document.scanned {
            Scanned::Json { depth, .. } => {
                let json = simdutf8::basic::from_utf8(message.payload()).map_err(|_| Deopt)?;
                Ok(Payload { json: Some(json), slots: document.slots, depth: depth.into() })
            }
            Scanned::Other => Ok(NONE),
            Scanned::TooDeep => Err(Deopt),
        }
    }
}
