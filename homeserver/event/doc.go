// SPDX-License-Identifier: Apache-2.0

// Package event knows what a Matrix event is: persistent data units (PDUs) of room versions 1 to 12, their canonical JSON,
// hashes and signatures, the rules by which they are authorised, and how forked room state is resolved.
//
// Events are kept as the canonical JSON that was hashed and signed; everything else is read from it. The rules are written down here
// from the spec; gomatrixserverlib and mautrix are second opinions of the tests. The package does no I/O: whoever calls gives it the
// events it needs, through State for one room state and Around for a conflict between several.
//
//	Proto --Build(signer)--> Event --Authorise(state)--> allowed?
//	JSON  --Parse----------> Event
//	state sets --Resolve---> one state
package event
