// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// keptSecret is the secret called name in the data folder, made when it is not there: 32 random bytes in base64url. Two processes
// that start at once agree on one.
func keptSecret(dataDir, name string) (string, error) {
	folder := filepath.Join(dataDir, "secrets")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	file := filepath.Join(folder, name)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		rand.Read(key) // never fails: it would end the process
		if err := createPrivate(file, []byte(base64.RawURLEncoding.EncodeToString(key)+"\n")); err != nil {
			return "", err
		}
		text, err = os.ReadFile(file) // ours, or that of a process which was faster
	}
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s is empty; remove it to have a new secret made", file)
	}
	return secret, nil
}

// createPrivate writes a file that only its owner can read, all of it or nothing, and leaves one that is there already alone.
func createPrivate(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) { // unlike rename, link replaces nothing
		return err
	}
	return nil
}
