//! Dialogues and properties of the machine.
