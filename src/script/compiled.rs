//! A plan with what it needs to run for message after message: one lane's own.
use super::{
    engine,
    path::Segment,
    plan::{Deopt, Document, Outcome, Plan},
};
use crate::{
    codec::json::scan,
    message::{Layout, MessageRef, NodeId, Slot},
};

pub(super) struct Compiled {
    plan: Plan,
    layout: Layout,
    /// The plan's places in the layout.
    nodes: Vec<NodeId>,
    slots: Vec<Slot>,
}

impl Compiled {
    pub fn new(plan: Plan) -> Self {
        let mut layout = Layout::new();
        let mut nodes: Vec<NodeId> = Vec::new();
        for place in plan.places() {
            nodes.push(match &place.segment {
                None => NodeId::ROOT,
                Some(Segment::Key(name)) => layout.key(nodes[place.parent], name),
                Some(Segment::Index(index)) => layout.item(nodes[place.parent], *index),
            });
        }
        let slots = vec![Slot::default(); layout.len()];
        Self { plan, layout, nodes, slots }
    }

    /// How many members the maps have that the script may end with.
    pub fn members(&self) -> usize {
        self.plan.members().len()
    }

    /// As `Plan::map`.
    pub fn map(&mut self, message: MessageRef<'_>, out: &mut Vec<u8>, index: &mut [Slot]) -> Result<Outcome, Deopt> {
        engine::begin();
        let document = read(&self.plan, &self.layout, message, &mut self.slots)?;
        self.plan.map(message, document, &self.nodes, out, index)
    }

    /// As `Plan::test`.
    pub fn test(&mut self, message: MessageRef<'_>) -> Result<bool, Deopt> {
        engine::begin();
        let document = read(&self.plan, &self.layout, message, &mut self.slots)?;
        self.plan.test(message, document, &self.nodes)
    }
}

/// Scans the payload, if the plan wants to know.
fn read<'m>(plan: &Plan, layout: &Layout, message: MessageRef<'m>, slots: &'m mut [Slot]) -> Result<Document<'m>, Deopt> {
    let mut document = Document { json: None, slots: &[], depth: 0 };
    if !plan.reads_json() {
        return Ok(document);
    }
    if let Ok(json) = simdutf8::basic::from_utf8(message.payload()) {
        match scan(layout, json, slots) {
            Ok(depth) => document = Document { json: Some(json), slots, depth },
            Err(error) if error.too_deep => return Err(Deopt),
            Err(_) => slots.fill(Slot::default()),
        }
    }
    Ok(document)
}
