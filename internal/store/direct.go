package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
)

// direct is a connection below database/sql: for a row, its pool, locks and
// conversions cost as much as SQLite does. Writing and the reads of every request
// go this way, all others go the usual one.
//
// It is for one goroutine at a time. Statements are prepared once and run
// without a caller's context.
type direct struct {
	conn     driver.Conn
	prepared map[string]*statement
}

// statement is a prepared statement with the memory that its runs share.
type statement struct {
	driver.Stmt
	args   []driver.NamedValue
	values []driver.Value
}

func connect(ctx context.Context, c driver.Connector) (*direct, error) {
	conn, err := c.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &direct{conn: conn, prepared: map[string]*statement{}}, nil
}

func (d *direct) close() error {
	var errs []error
	for _, s := range d.prepared {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, d.conn.Close())...)
}

// statement prepares a statement, or finds it prepared, and gives it its arguments.
func (d *direct) statement(query string, args []any) (*statement, error) {
	s, ok := d.prepared[query]
	if !ok {
		prepared, err := d.conn.Prepare(query)
		if err != nil {
			return nil, err
		}
		s = &statement{Stmt: prepared}
		d.prepared[query] = s
	}
	s.args = s.args[:0]
	for i, arg := range args {
		value, err := argument(arg)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", i+1, err)
		}
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: value})
	}
	return s, nil
}

func argument(arg any) (driver.Value, error) {
	switch arg := arg.(type) {
	case nil, int64, string, []byte:
		return arg, nil
	case int:
		return int64(arg), nil
	}
	return driver.DefaultParameterConverter.ConvertValue(arg)
}

// exec runs a statement to its end.
func (d *direct) exec(query string, args ...any) (driver.Result, error) {
	s, err := d.statement(query, args)
	if err != nil {
		return nil, err
	}
	defer clear(s.args)
	return s.Stmt.(driver.StmtExecContext).ExecContext(context.Background(), s.args)
}

// query runs a statement that yields rows. The cursor is good until the same
// statement is run again.
func (d *direct) query(query string, args ...any) (*cursor, error) {
	s, err := d.statement(query, args)
	if err != nil {
		return nil, err
	}
	defer clear(s.args)
	rows, err := s.Stmt.(driver.StmtQueryContext).QueryContext(context.Background(), s.args)
	if err != nil {
		return nil, err
	}
	if n := len(rows.Columns()); len(s.values) != n {
		s.values = make([]driver.Value, n)
	}
	return &cursor{rows: rows, values: s.values}, nil
}

// row runs a statement and takes its first row, which must be scanned before the
// same statement is run again.
func (d *direct) row(query string, args ...any) scanner {
	c, err := d.query(query, args...)
	if err != nil {
		return noRow{err}
	}
	found := c.Next()
	if err := errors.Join(c.Err(), c.Close()); err != nil {
		return noRow{err}
	}
	if !found {
		return noRow{sql.ErrNoRows}
	}
	return c
}

// scanner is a row, or why there is none.
type scanner interface{ Scan(dest ...any) error }

type noRow struct{ error }

func (n noRow) Scan(...any) error { return n.error }

// cursor walks over rows, as *sql.Rows does.
type cursor struct {
	rows   driver.Rows
	values []driver.Value
	err    error
}

func (c *cursor) Next() bool {
	if c.err == nil {
		c.err = c.rows.Next(c.values)
	}
	return c.err == nil
}

func (c *cursor) Err() error {
	if c.err == io.EOF {
		return nil
	}
	return c.err
}

func (c *cursor) Close() error { return c.rows.Close() }

// Scan does what (*sql.Rows).Scan does, for the types that the ledger keeps.
// Bytes are not copied: SQLite's driver gives new ones for each row.
func (c *cursor) Scan(dest ...any) error {
	if len(dest) != len(c.values) {
		return fmt.Errorf("a row of %d columns is read into %d", len(c.values), len(dest))
	}
	for i, value := range c.values {
		if err := assign(dest[i], value); err != nil {
			return fmt.Errorf("column %d (%s): %w", i+1, c.rows.Columns()[i], err)
		}
	}
	return nil
}

func assign(dest any, value driver.Value) error {
	switch dest := dest.(type) {
	case *int64:
		if n, ok := value.(int64); ok {
			*dest = n
			return nil
		}
	case *string:
		if s, ok := value.(string); ok {
			*dest = s
			return nil
		}
	case *[]byte:
		var ok bool
		if *dest, ok = bytesOf(value); ok {
			return nil
		}
	case *sql.RawBytes:
		b, ok := bytesOf(value)
		if *dest = b; ok {
			return nil
		}
	case *sql.NullString:
		dest.String, dest.Valid = value.(string)
		if dest.Valid || value == nil {
			return nil
		}
	case *sql.NullInt64:
		dest.Int64, dest.Valid = value.(int64)
		if dest.Valid || value == nil {
			return nil
		}
	case *any:
		*dest = value
		return nil
	case sql.Scanner:
		return dest.Scan(value)
	}
	return assignKind(reflect.ValueOf(dest).Elem(), value)
}

func bytesOf(value driver.Value) ([]byte, bool) {
	switch value := value.(type) {
	case nil:
		return nil, true
	case []byte:
		return value, true
	case string:
		return []byte(value), true
	}
	return nil, false
}

// assignKind is for the types of our own that are texts and numbers.
func assignKind(dest reflect.Value, value driver.Value) error {
	switch value := value.(type) {
	case string:
		if dest.Kind() == reflect.String {
			dest.SetString(value)
			return nil
		}
	case int64:
		switch {
		case dest.Kind() == reflect.Bool && (value == 0 || value == 1):
			dest.SetBool(value == 1)
			return nil
		case dest.CanInt() && !dest.OverflowInt(value):
			dest.SetInt(value)
			return nil
		case dest.CanUint() && value >= 0 && !dest.OverflowUint(uint64(value)):
			dest.SetUint(uint64(value))
			return nil
		}
	}
	return fmt.Errorf("a %T does not go into a %s", value, dest.Type())
}

// readers are connections that read. The one that was given back last is taken first: each commit makes what a connection has cached
// worthless, so the fewer are in use, the more they find.
type readers struct {
	connector driver.Connector
	places    chan struct{} // bounds the connections in use
	mu        sync.Mutex
	idle      []*direct
	closed    bool
}

func newReaders(c driver.Connector, n int) *readers {
	return &readers{connector: c, places: make(chan struct{}, n)}
}

// use runs f with a connection of its own.
func (r *readers) use(ctx context.Context, f func(*direct) error) error {
	select {
	case r.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.places }()
	d, err := r.take()
	if err == nil && d == nil {
		d, err = connect(ctx, r.connector)
	}
	if err != nil {
		return err
	}
	err = f(d)
	if !isAway(err) && r.give(d) {
		return err
	}
	return errors.Join(err, d.close()) // a new one may see what is there now
}

// take gives an idle connection, nil if there is none.
func (r *readers) take() (d *direct, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, sql.ErrConnDone
	}
	if n := len(r.idle); n > 0 {
		d, r.idle = r.idle[n-1], r.idle[:n-1]
	}
	return d, nil
}

func (r *readers) give(d *direct) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.idle = append(r.idle, d)
	}
	return !r.closed
}

// close refuses later reads. Those under way close their connections themselves.
func (r *readers) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, d := range r.idle {
		errs = append(errs, d.close())
	}
	r.idle, r.closed = nil, true
	return errors.Join(errs...)
}
