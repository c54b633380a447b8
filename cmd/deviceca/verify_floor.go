package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/deviceca/deviceca/pack"
)

// raiseFloor refuses a pack that is older than the newest seen of its CA, and otherwise notes it as
// seen. Reading, comparing and writing are one step for all processes that share the file,
// so that a floor only rises.
func raiseFloor(file string, p *pack.Pack) error {
	if file == "" {
		return nil
	}
	unlock, err := lockFile(file)
	if err != nil {
		return fmt.Errorf("the floor file: %w", err)
	}
	defer unlock()
	floors, err := readFloors(file)
	if err != nil {
		return err
	}
	hash := p.Header().Issuer
	name := hex.EncodeToString(hash[:])
	switch order := p.Floor().Compare(floors[name]); {
	case order < 0:
		return &pack.RollbackError{Got: p.Floor(), Floor: floors[name]}
	case order == 0:
		return nil
	}
	floors[name] = p.Floor()
	raw, err := json.MarshalIndent(floors, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(file, append(raw, '\n'), 0o644)
}

// readFloors reads the newest state seen of each CA, by the hash of its key.
func readFloors(file string) (map[string]pack.Floor, error) {
	floors := map[string]pack.Floor{}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return floors, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &floors)
	}
	if err == nil && floors == nil {
		err = errors.New("it holds null")
	}
	if err != nil {
		return nil, fmt.Errorf("the floor file %s: %w", file, err)
	}
	return floors, nil
}
