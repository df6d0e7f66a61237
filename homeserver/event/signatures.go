// SPDX-License-Identifier: Apache-2.0

package event

// Signatures lists the ids of the keys that e is signed with, by server.
func (e *Event) Signatures() map[string][]string { return signaturesOf(e.raw) }

// Signatures lists the ids of the keys that a JSON object is signed with, by server; nil for what is no such object.
func Signatures(raw []byte) map[string][]string {
	whole, err := Canonical(raw)
	if err != nil {
		return nil
	}
	return signaturesOf(whole)
}

func signaturesOf(whole []byte) map[string][]string {
	out := map[string][]string{}
	eachSignature(whole, func(name, id, _ string) { out[name] = append(out[name], id) })
	return out
}

// Signers are the servers whose signatures e must have ("Validating hashes and signatures on received events"): that of the sender,
// unless the event is an invite that a third party vouches for; in v1 and v2 that of the event id; and the one that let the user into
// a restricted room.
func (e *Event) Signers() (servers []string) {
	add := func(id string) {
		s := ServerOf(id)
		for _, x := range servers {
			if x == s {
				return
			}
		}
		servers = append(servers, s)
	}
	m := member{}
	if e.typ == "m.room.member" {
		m = e.facts().member
	}
	if m.thirdParty == nil || m.membership != "invite" {
		add(e.Sender())
	}
	if e.version.n() <= 2 {
		add(e.ID())
	}
	if m.authorised != "" && m.membership == "join" && e.version.Restricted() {
		add(m.authorised)
	}
	return servers
}

// StrictKeys says that a signature counts only where its key was promised to be good when the event was made (v5 and later).
func (v Version) StrictKeys() bool { return v.n() >= 5 }
