// SPDX-License-Identifier: Apache-2.0

package accounts

import (
	"context"
	"strings"

	"github.com/trunkboard/trunkboard/homeserver/storage"
)

const (
	searchPage  = 200  // accounts read at once
	searchMost  = 5000 // accounts looked at for one search
	searchWords = 8
)

var likeEscape = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Search finds users whose name or id holds every word of term, without regard to case, and who pass visible; limited says that there
// are more than limit.
func (s *Service) Search(ctx context.Context, term string, limit int, visible func(userID string) (bool, error)) (found []storage.User, limited bool, err error) {
	words := strings.Fields(strings.ToLower(term))
	if len(words) == 0 {
		return nil, false, nil
	}
	words = words[:min(len(words), searchWords)]
	// The database narrows the choice by a word whose case every engine folds in the same way.
	pattern := "%"
	for _, w := range words {
		if strings.IndexFunc(w, func(r rune) bool { return r >= 0x80 }) < 0 {
			pattern = "%" + likeEscape.Replace(w) + "%"
			break
		}
	}
	after := ""
	for seen := 0; seen < searchMost; {
		page, err := s.store.SearchUsers(ctx, pattern, after, searchPage)
		if err != nil {
			return nil, false, err
		}
	users:
		for _, u := range page {
			seen++
			after = u.ID
			text := strings.ToLower(u.DisplayName + "\n" + u.ID)
			for _, w := range words {
				if !strings.Contains(text, w) {
					continue users
				}
			}
			ok, err := visible(u.ID)
			if err != nil {
				return nil, false, err
			}
			if !ok {
				continue
			}
			if len(found) == limit {
				return found, true, nil
			}
			found = append(found, u)
		}
		if len(page) < searchPage {
			return found, false, nil
		}
	}
	return found, true, nil
}
