// SPDX-License-Identifier: Apache-2.0

// Package event knows what a Matrix event is: persistent data units (PDUs) of room versions 1 to 12, their canonical JSON,
// hashes and signatures, the rules by which they are authorised, and how forked room state is resolved.
//
// It is a thin, typed face over gomatrixserverlib and the only package that names it. It does no I/O: whoever calls gives it the
// events it needs, through State for one room state and Fetch for events by id.
//
//	Proto --Build(signer)--> Event --Authorise(state)--> allowed?
//	JSON  --Parse----------> Event
//	state sets --Resolve---> one state
package event
