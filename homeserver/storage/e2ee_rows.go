// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"strconv"
	"strings"
)

// rowsQuery is one statement in several sizes: for 1 row, for 8, for 32. A list of any length is written with few statements, and
// each text is a constant that is prepared once.
type rowsQuery []sizedQuery

type sizedQuery struct {
	rows int
	text string
}

// perRow builds a rowsQuery: before, then row repeated with sep between, then after. $1 to $fixed are the same for all rows; each
// ? in row is a parameter of its own, numbered from fixed+1.
func perRow(fixed int, before, row, sep, after string) rowsQuery {
	var q rowsQuery
	for _, n := range []int{32, 8, 1} {
		var b strings.Builder
		b.WriteString(before)
		next := fixed
		for i := range n {
			if i > 0 {
				b.WriteString(sep)
			}
			for j, part := range strings.Split(row, "?") {
				if j > 0 {
					next++
					b.WriteString("$" + strconv.Itoa(next))
				}
				b.WriteString(part)
			}
		}
		b.WriteString(after)
		q = append(q, sizedQuery{n, b.String()})
	}
	return q
}

// each calls f with the text for rows lo to hi-1, until all n rows are covered.
func (q rowsQuery) each(n int, f func(text string, lo, hi int) error) error {
	lo := 0
	for _, s := range q {
		for n-lo >= s.rows {
			if err := f(s.text, lo, lo+s.rows); err != nil {
				return err
			}
			lo += s.rows
		}
	}
	return nil
}
