// SPDX-License-Identifier: Apache-2.0

// Package deliver tells applications that are not running what happened: it looks at every event once, asks the push rules of those
// who have pushers, and hands notifications to their gateways.
//
//	store ─ Observe ─> fresh ─> Run: rules ─> push_queue (SQL) ─> a lane for each pusher ─> gateway
//	                     └ full: read again from the store
//
// The position up to which events were looked at is stored in the transaction that queues what they led to, so nothing is lost or
// queued twice when the process is killed; a notification that was handed over and not yet crossed out then is handed over again. With
// several nodes each may look at events, but only one moves the position over them; a pusher is delivered by the node that leases it.
//
// A lane delivers one notification after the other, in order. Gateways are strangers: a host gets a few exchanges at a time, hosts
// that fail share a small part of all exchanges, and a pusher that fails is tried again later and later, until what it has to say is
// a day old. Of a pusher that fails the newest hundred notifications are kept.
//
// A call is special. Its push is of high priority, and is not sent at all in a public room, to somebody else than the invitee, after
// the invite's lifetime, or when the call does not ring any more. When the ringing ends, what waits is taken back, and devices that
// were told are told that it is over: with their new counts, which is all that the push gateway API has for it, and with the event's
// id under org.trunkboard.withdrawn.
package deliver
