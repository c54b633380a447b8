package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/deviceca/deviceca/internal/audit"
)

// VerifyAudit checks the audit log on the server's side; progress is told now
// and then how far it is.
func (c *Client) VerifyAudit(ctx context.Context, progress func(AuditProgress)) (*AuditReport, error) {
	resp, err := c.send(ctx, http.MethodPost, "/audit/verify", nil, "application/json", strings.NewReader("{}"))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var line AuditLine
		if err := dec.Decode(&line); err != nil {
			return nil, fmt.Errorf("the answer of %s broke off: %w", c.Where, err)
		}
		switch {
		case line.Report != nil:
			return line.Report, nil
		case line.Problem != nil:
			return nil, line.Problem
		case line.Progress != nil:
			progress(*line.Progress)
		}
	}
}

// CheckHeads asks whether the log has every one of up to MaxHeads heads.
func (c *Client) CheckHeads(ctx context.Context, heads []audit.Checkpoint) (*HeadsChecked, error) {
	return post[HeadsChecked](ctx, c, "/audit/heads", HeadsToCheck{heads})
}
