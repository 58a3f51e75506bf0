use crate::{message::MessageRef, step::Failure};
pub struct Condition;
pub struct ScriptError;
impl ScriptError {
    pub fn into_failure(self, _o: u32) -> Failure {
        unimplemented!()
    }
}
impl Condition {
    pub fn test(&mut self, _m: MessageRef<'_>) -> Result<bool, ScriptError> {
        unimplemented!()
    }
}
