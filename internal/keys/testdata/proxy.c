/*
 * A PKCS#11 module that hands every call to another one (PROXY_MODULE), unless
 * the file PROXY_CONTROL exists. Each of its lines then is
 *
 *	FUNCTION fail RV        the call returns RV (hexadecimal)
 *	FUNCTION block MS       the call waits MS milliseconds first, or until the file is gone
 *	FUNCTION lack M         the call says that the mechanism M (its second argument) is unknown
 *	FUNCTION limit N        the call says that there are too many sessions, if N are open
 *	FUNCTION alone RV       the call returns RV if another of the function is under way
 *	FUNCTION spoil N        the call succeeds, and octet N of what its fourth argument points to is another
 *
 * with * for every function. Calls that matter to the tests are appended to
 * PROXY_LOG as "FUNCTION RV OPEN", OPEN being the sessions open after it.
 *
 * A function list is a version and 68 pointers to functions whose arguments are
 * all words or smaller, eight at most. So one shape of wrapper serves all of
 * them on the machines that the tests run on (System V x86-64, AArch64).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ck;
typedef ck (*fn)(ck, ck, ck, ck, ck, ck, ck, ck);

struct list {
	unsigned char major, minor;
	void *f[68];
};

static const char *names[68] = {
	"C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList",
	"C_GetSlotInfo", "C_GetTokenInfo", "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken",
	"C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession", "C_CloseAllSessions",
	"C_GetSessionInfo", "C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout",
	"C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize", "C_GetAttributeValue",
	"C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit",
	"C_Encrypt", "C_EncryptUpdate", "C_EncryptFinal", "C_DecryptInit", "C_Decrypt",
	"C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest", "C_DigestUpdate",
	"C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate",
	"C_SignFinal", "C_SignRecoverInit", "C_SignRecover", "C_VerifyInit", "C_Verify",
	"C_VerifyUpdate", "C_VerifyFinal", "C_VerifyRecoverInit", "C_VerifyRecover", "C_DigestEncryptUpdate",
	"C_DecryptDigestUpdate", "C_SignEncryptUpdate", "C_DecryptVerifyUpdate", "C_GenerateKey", "C_GenerateKeyPair",
	"C_WrapKey", "C_UnwrapKey", "C_DeriveKey", "C_SeedRandom", "C_GenerateRandom",
	"C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
};

static struct list *real;
static struct list mine;
static atomic_int open_sessions;
static atomic_int inside[68]; /* calls under way */

static ck interfere(int i, ck second, long *spoil)
{
	const char *path = getenv("PROXY_CONTROL");
	char name[64], action[16];
	ck value, rv = 0;
	FILE *f = path ? fopen(path, "r") : NULL;

	if (!f)
		return 0;
	while (!rv && fscanf(f, "%63s %15s %lx", name, action, &value) == 3) {
		if (strcmp(name, "*") && strcmp(name, names[i]))
			continue;
		if (!strcmp(action, "fail"))
			rv = value;
		else if (!strcmp(action, "lack"))
			rv = second == value ? 0x70 : 0;
		else if (!strcmp(action, "alone"))
			rv = inside[i] > 1 ? value : 0;
		else if (!strcmp(action, "limit"))
			rv = open_sessions >= (int)value ? 0xb1 : 0;
		else if (!strcmp(action, "spoil"))
			*spoil = value;
		else /* MS was read as hexadecimal too; the test writes it so */
			for (; value > 10 && !access(path, F_OK); value -= 10)
				usleep(10000);
	}
	fclose(f);
	return rv;
}

static void record(int i, ck rv)
{
	const char *path = getenv("PROXY_LOG");
	FILE *f;

	if (!rv && i == 12)
		open_sessions++;
	if (!rv && i == 13)
		open_sessions--;
	if (!rv && i == 1)
		open_sessions = 0;
	if (!path || (i > 1 && i != 12 && i != 13 && i != 18))
		return;
	if ((f = fopen(path, "a"))) {
		fprintf(f, "%s %lx %d\n", names[i], rv, open_sessions);
		fclose(f);
	}
}

static ck call(int i, ck a, ck b, ck c, ck d, ck e, ck f, ck g, ck h)
{
	long spoil = -1;
	ck rv;

	inside[i]++;
	rv = interfere(i, b, &spoil);
	if (!rv)
		rv = ((fn)real->f[i])(a, b, c, d, e, f, g, h);
	if (!rv && spoil >= 0 && d)
		((unsigned char *)d)[spoil] ^= 1;
	inside[i]--;
	record(i, rv);
	return rv;
}

#define W(n) static ck w##n(ck a, ck b, ck c, ck d, ck e, ck f, ck g, ck h) { return call(n, a, b, c, d, e, f, g, h); }
#define TEN(d) W(d##0) W(d##1) W(d##2) W(d##3) W(d##4) W(d##5) W(d##6) W(d##7) W(d##8) W(d##9)
W(0) W(1) W(2) W(3) W(4) W(5) W(6) W(7) W(8) W(9)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5)
W(60) W(61) W(62) W(63) W(64) W(65) W(66) W(67)
#define P(d) w##d##0, w##d##1, w##d##2, w##d##3, w##d##4, w##d##5, w##d##6, w##d##7, w##d##8, w##d##9
static void *wrappers[68] = {
	w0, w1, w2, w3, w4, w5, w6, w7, w8, w9,
	P(1), P(2), P(3), P(4), P(5),
	w60, w61, w62, w63, w64, w65, w66, w67,
};

ck C_GetFunctionList(struct list **out)
{
	void *module = dlopen(getenv("PROXY_MODULE"), RTLD_NOW);
	ck (*get)(struct list **) = module ? dlsym(module, "C_GetFunctionList") : NULL;
	ck rv;

	if (!get)
		return 5;
	if ((rv = get(&real)))
		return rv;
	mine.major = real->major;
	mine.minor = real->minor;
	memcpy(mine.f, wrappers, sizeof wrappers);
	*out = &mine;
	return 0;
}
