// Running part of a test in a forked process: one that may be killed, may give up its rights, or
// may have system calls taken away from it.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace siltstone {

// Forks; the child runs `body` and exits with what it returns.
inline pid_t start_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  return child;
}

// The exit status, or 128 + signal.
inline int wait_for(pid_t child) {
  int status = 0;
  if (::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// What `body` returns in a child, or "<died: STATUS>".
inline std::string report_of_child(const std::function<std::string()>& body) {
  int ends[2];
  if (::pipe(ends) != 0) return "<no pipe>";
  const pid_t child = start_child([&] {
    const std::string report = body();
    return ::write(ends[1], report.data(), report.size()) == std::ssize(report) ? 0 : 1;
  });
  ::close(ends[1]);
  std::string report;
  char piece[4096];
  for (ssize_t got; (got = ::read(ends[0], piece, sizeof piece)) > 0;) {
    report.append(piece, static_cast<size_t>(got));
  }
  ::close(ends[0]);
  const int status = wait_for(child);
  return status == 0 ? report : "<died: " + std::to_string(status) + ">";
}

struct DeniedCall {
  long number;
  int error;
};

// From now on these system calls of this process do nothing and fail. False where the system does
// not let a process do that.
inline bool deny(const std::vector<DeniedCall>& calls) {
  std::vector<sock_filter> filter;
  filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
  for (const DeniedCall& call : calls) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call.number), 0, 1));
    filter.push_back(
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(call.error)));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Makes this process an ordinary user's, so that file modes bind it.
inline bool give_up_rights() {
  constexpr uid_t kNobody = 65534;
  if (::geteuid() != 0) return true;
  return ::setresgid(kNobody, kNobody, kNobody) == 0 && ::setresuid(kNobody, kNobody, kNobody) == 0;
}

}  // namespace siltstone
