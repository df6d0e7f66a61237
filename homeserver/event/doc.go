// SPDX-License-Identifier: Apache-2.0

// Package event knows what a Matrix event is: persistent data units (PDUs) of room versions 1 to 12, their canonical JSON,
// hashes and signatures, the rules by which they are authorised, and how forked room state is resolved.
//
// An event is its canonical JSON; its fields are read from there in one pass, and what the auth rules need of the content is parsed
// once and kept. Tests hold every answer against gomatrixserverlib, and the auth rules against mautrix too; where they differ the
// spec decides, and a test names the place.
//
// The package does no I/O: whoever calls gives it the events it needs, through State for one room state and Around for the graph
// that a fork is resolved in.
//
//	Proto --Build(signer)--> Event --Authorise(state)--> allowed?
//	JSON  --Parse----------> Event
//	state sets --Resolve---> one state
package event
