/*
 * Both ends of an echo over vsock, for the rig's guest, which has no other program that speaks it.
 *
 *   guest-echo serve PORT      listens, goes into the background, and sends back what it receives
 *   guest-echo ask PORT WORD   sends WORD to PORT of the host and prints what comes back
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void fail(const char *what)
{
	fprintf(stderr, "guest-echo: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void write_all(int to, const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t written = write(to, bytes, count);
		if (written < 0)
			fail("write");
		bytes += written;
		count -= (size_t)written;
	}
}

/* Until the end of input. */
static void copy(int from, int to)
{
	char bytes[4096];
	ssize_t count;

	while ((count = read(from, bytes, sizeof(bytes))) > 0)
		write_all(to, bytes, (size_t)count);
	if (count < 0)
		fail("read");
}

static void serve(int listener, struct sockaddr_vm *address)
{
	address->svm_cid = VMADDR_CID_ANY;
	if (bind(listener, (struct sockaddr *)address, sizeof(*address)) < 0)
		fail("bind");
	if (listen(listener, 16) < 0)
		fail("listen");
	signal(SIGCHLD, SIG_IGN);
	if (daemon(0, 0) < 0)
		fail("daemon");
	for (;;) {
		int peer = accept(listener, NULL, NULL);
		if (peer < 0)
			fail("accept");
		if (fork() == 0) {
			copy(peer, peer);
			exit(0);
		}
		close(peer);
	}
}

static void ask(int peer, struct sockaddr_vm *address, const char *word)
{
	address->svm_cid = VMADDR_CID_HOST;
	if (connect(peer, (struct sockaddr *)address, sizeof(*address)) < 0)
		fail("connect");
	write_all(peer, word, strlen(word));
	if (shutdown(peer, SHUT_WR) < 0)
		fail("shutdown");
	copy(peer, STDOUT_FILENO);
}

int main(int count, char **words)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK };
	int peer = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (peer < 0)
		fail("socket");
	if (count >= 3)
		address.svm_port = (unsigned int)strtoul(words[2], NULL, 10);
	if (count == 3 && strcmp(words[1], "serve") == 0) {
		serve(peer, &address);
	} else if (count == 4 && strcmp(words[1], "ask") == 0) {
		ask(peer, &address, words[3]);
	} else {
		fprintf(stderr, "usage: guest-echo serve PORT | ask PORT WORD\n");
		return 2;
	}
	return 0;
}
