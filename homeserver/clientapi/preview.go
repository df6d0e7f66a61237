// SPDX-License-Identifier: Apache-2.0

package clientapi

import "github.com/trunkboard/trunkboard/signalling"

// routesPreview: previews of links, under the name of today and the one of before v1.11.
func (a *API) routesPreview() {
	if a.Preview == nil {
		return
	}
	for _, path := range []string{"client/v1/media", "media/v3", "media/r0"} {
		a.route("GET /_matrix/"+path+"/preview_url", Token, "requests", a.preview)
	}
}

// preview does not look at ts: a page is shown as it is now.
func (a *API) preview(r *Request) (any, error) {
	if !r.HasParam("url") {
		return nil, signalling.MissingParam("url is missing")
	}
	if _, err := r.IntParam("ts", 0, 0, 1<<53); err != nil {
		return nil, err
	}
	return a.Preview.Preview(r.Context(), r.Param("url"))
}
