package store

import (
	"context"
	"database/sql/driver"
	"io/fs"
)

// OpenWrapped is Open with something around the writer's connections.
func OpenWrapped(ctx context.Context, dbURL string, opts Options, wrap func(driver.Connector) driver.Connector) (*Store, error) {
	return open(ctx, dbURL, opts, seams{wrap: wrap, migrations: Migrations()})
}

// OpenMigrating is Open with other migrations.
func OpenMigrating(ctx context.Context, dbURL string, opts Options, migrations fs.FS) (*Store, error) {
	return open(ctx, dbURL, opts, seams{wrap: func(c driver.Connector) driver.Connector { return c }, migrations: migrations})
}

// Migrations are those of this version.
func Migrations() fs.FS {
	sub, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		panic(err)
	}
	return sub
}
