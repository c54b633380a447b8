package admin

import (
	"net/http"
	"slices"

	"github.com/deviceca/deviceca/ca"
)

// Role bounds what an administrator may do over https. The socket's owner may do all.
type Role string

const (
	RoleAdmin    Role = "admin"
	RoleOperator Role = "operator"
	RoleAuditor  Role = "auditor"
)

// May says what a role may do, for people; the table of routes decides.
func (r Role) May() string {
	switch r {
	case RoleAdmin:
		return "all that works from another host: also administrators, policy, who vouches (manufacturers, RAs)"
	case RoleOperator:
		return "devices, credentials, approvals, accounts, revocation, publishing; withdraws who vouches; reads all but administrators and the audit log"
	case RoleAuditor:
		return "reads all, administrators and the audit log included; changes nothing"
	}
	return ""
}

// Roles lists every role.
func Roles() []Role { return []Role{RoleAdmin, RoleOperator, RoleAuditor} }

var (
	everyone = []Role{RoleAdmin, RoleOperator, RoleAuditor}
	workers  = []Role{RoleAdmin, RoleOperator}
	watchers = []Role{RoleAdmin, RoleAuditor}
	admins   = []Role{RoleAdmin}
)

// route is one line of the table. run returns what to answer as JSON: nil is
// 204 without a body.
type route struct {
	method, path string
	roles        []Role
	local        bool // on the socket only
	heavy        bool // may take a second of CPU or more: see API.enter
	run          func(*call) (any, error)
}

// routes is the whole API.
func routes() []route {
	const get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
	return []route{
		{method: get, path: "/status", roles: everyone, run: (*call).status},

		{method: get, path: "/devices", roles: everyone, run: (*call).listDevices},
		{method: post, path: "/devices", roles: workers, run: (*call).addDevice},
		{method: post, path: "/devices/import", roles: workers, run: (*call).importDevices},
		{method: get, path: "/devices/{id}", roles: everyone, run: (*call).showDevice},
		{method: post, path: "/devices/{id}", roles: workers, run: (*call).setDevice},
		{method: del, path: "/devices/{id}", roles: workers, run: (*call).removeDevice},
		{method: post, path: "/devices/{id}/claim", roles: workers, run: (*call).claimDevice},
		{method: post, path: "/devices/{id}/suspend", roles: workers, run: (*call).suspendDevice},
		{method: post, path: "/devices/{id}/resume", roles: workers, run: (*call).resumeDevice},
		{method: post, path: "/devices/{id}/retire", roles: workers, run: (*call).retireDevice},

		{method: get, path: "/credentials", roles: everyone, run: (*call).listCredentials},
		{method: post, path: "/credentials", roles: workers, run: (*call).addCredential},
		{method: post, path: "/credentials/{reference}/revoke", roles: workers, run: (*call).revokeCredential},

		{method: get, path: "/manufacturers", roles: everyone, run: (*call).listManufacturers},
		{method: post, path: "/manufacturers", roles: admins, run: (*call).addManufacturer},
		{method: get, path: "/manufacturers/{name}", roles: everyone, run: (*call).showManufacturer},
		{method: post, path: "/manufacturers/{name}/crls", roles: workers, run: (*call).replaceLists},
		{method: post, path: "/manufacturers/{name}/withdraw", roles: workers, run: (*call).withdrawManufacturer},
		{method: get, path: "/ras", roles: everyone, run: (*call).listRAs},
		{method: post, path: "/ras", roles: admins, run: (*call).addRA},
		{method: del, path: "/ras/{name}", roles: workers, run: (*call).removeRA},

		{method: get, path: "/certificates", roles: everyone, run: (*call).listCertificates},
		{method: get, path: "/certificates/{serial}", roles: everyone, run: (*call).showCertificate},
		{method: post, path: "/certificates/{serial}/revoke", roles: workers, run: (*call).revokeCertificate},
		{method: post, path: "/certificates/{serial}/release", roles: workers, run: (*call).releaseCertificate},

		{method: get, path: "/requests", roles: everyone, run: (*call).listRequests},
		{method: get, path: "/requests/{id}", roles: everyone, run: (*call).showRequest},
		{method: post, path: "/requests/{id}/approve", roles: workers, run: (*call).approveRequest},
		{method: post, path: "/requests/{id}/deny", roles: workers, run: (*call).denyRequest},

		{method: get, path: "/accounts", roles: everyone, run: (*call).listAccounts},
		{method: get, path: "/accounts/{id}", roles: everyone, run: (*call).showAccount},
		{method: post, path: "/accounts/{id}/deactivate", roles: workers, run: (*call).deactivateAccount},

		{method: get, path: "/cas", roles: everyone, run: (*call).listCAs},
		{method: get, path: "/cas/{name}", roles: everyone, run: (*call).exportCA},
		{method: post, path: "/cas", roles: admins, local: true, run: (*call).takeCA},
		{method: post, path: "/cas/{name}/request", roles: admins, local: true, run: (*call).requestCA},
		{method: post, path: "/cas/{name}/activate", roles: admins, local: true, run: (*call).activateCA},
		{method: post, path: "/cas/{name}/revoke", roles: admins, local: true, run: (*call).revokeCA},
		{method: post, path: "/publish", roles: workers, run: (*call).publish},

		{method: get, path: "/policy", roles: everyone, run: (*call).showPolicy},
		{method: post, path: "/policy", roles: admins, heavy: true, run: (*call).applyPolicy},
		{method: post, path: "/policy/check", roles: workers, heavy: true, run: (*call).checkPolicy},
		{method: get, path: "/policies", roles: everyone, run: (*call).listPolicies},
		{method: get, path: "/policies/{version}", roles: everyone, run: (*call).showPolicyVersion},
		{method: post, path: "/policy/explain", roles: everyone, heavy: true, run: (*call).explain},
		{method: get, path: "/policy/explain/{serial}", roles: everyone, heavy: true, run: (*call).replay},

		{method: get, path: "/admins", roles: watchers, run: (*call).listAdmins},
		{method: post, path: "/admins", roles: admins, run: (*call).addAdmin},
		{method: del, path: "/admins/{name}", roles: admins, run: (*call).removeAdmin},

		{method: get, path: "/audit", roles: watchers, run: (*call).listAudit},
		{method: post, path: "/audit/verify", roles: watchers, heavy: true, run: (*call).verifyAudit},
		{method: post, path: "/audit/heads", roles: watchers, run: (*call).checkHeads},

		{method: post, path: "/backup", roles: admins, local: true, run: (*call).backup},
		{method: post, path: "/recover", roles: admins, local: true, run: (*call).recover},
	}
}

// allow checks who against the line.
func (rt route) allow(who identity) error {
	switch {
	case rt.local && !who.Local:
		return ca.Errorf(ca.Denied, "this works on the host alone, over the socket in the home directory")
	case !slices.Contains(rt.roles, who.Role):
		return ca.Errorf(ca.Denied, "role %s may not do this; it takes %s", who.Role, oneOf(rt.roles))
	}
	return nil
}

func oneOf(roles []Role) string {
	s := string(roles[0])
	for _, r := range roles[1:] {
		s += " or " + string(r)
	}
	return s
}
