// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/accounts"
	"github.com/trunkboard/trunkboard/homeserver/preview"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
)

func TestPreviewsAreForUsersAndOfPublicPages(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, st *storage.Store) {
		h := newHome(t, st, func(_ *accounts.Config, d *Deps) { d.Preview = preview.New(nil, "@_preview:test", nil, d.Clock) })
		alice, _ := h.register("alice")
		for _, path := range []string{"/v1/media/preview_url", "/_matrix/media/v3/preview_url"} {
			h.do("GET", path+"?url=http://example.org/", "", nil).refused(401, "M_MISSING_TOKEN")
			h.do("GET", path, alice, nil).refused(400, "M_MISSING_PARAM")
			h.do("GET", path+"?url=file:///etc/passwd", alice, nil).refused(400, "M_INVALID_PARAM")
			h.do("GET", path+"?url=http://example.org/&ts=soon", alice, nil).refused(400, "M_INVALID_PARAM")
			h.do("GET", path+"?url="+h.url+"/_matrix/client/versions", alice, nil).refused(502, "M_UNKNOWN")
		}
	})
}
