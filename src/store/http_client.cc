#include "store/http_client.h"

#include <curl/curl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <vector>

#include "store/rate_limit.h"

namespace siltstone {
namespace {

constexpr size_t kMaxHeaders = 256;
constexpr long kUploadBufferBytes = 512 << 10;
constexpr long kDownloadBufferBytes = 512 << 10;  // the most that libcurl takes

struct CloseHandle {
  void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
using Handle = std::unique_ptr<CURL, CloseHandle>;

struct FreeList {
  void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};
using HeaderList = std::unique_ptr<curl_slist, FreeList>;

void initialise_once() {
  static const CURLcode done = curl_global_init(CURL_GLOBAL_DEFAULT);
  (void)done;
}

// The bundle of certificate authorities: what the environment names, else libcurl's own default,
// else where other systems keep it (a wheel brings a libcurl that was built for Debian).
std::string find_ca_bundle() {
  for (const char* variable : {"AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"}) {
    const char* path = std::getenv(variable);
    if (path != nullptr && *path != '\0') return path;
  }
  const curl_version_info_data* info = curl_version_info(CURLVERSION_NOW);
  const char* own = info->age >= CURLVERSION_SEVENTH ? info->cainfo : nullptr;
  for (const char* path :
       {own, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}) {
    if (path != nullptr && ::access(path, R_OK) == 0) return path;
  }
  return {};
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// One request while it runs; what libcurl's callbacks get.
struct Transfer {
  CURL* handle = nullptr;
  const HttpRequest* request = nullptr;
  RateLimit* rate = nullptr;
  HttpReply reply;
  uint64_t sent_bytes = 0;
  int sends = 0;
  Status status;                 // of sink or body
  std::exception_ptr exception;  // that was thrown below libcurl

  bool wants_body() const { return reply.status == 200 || reply.status == 206; }
};

// Calls `body`; whatever it throws waits until libcurl has returned.
template <class Body>
size_t guarded(Transfer& transfer, size_t on_failure, const Body& body) {
  try {
    return body();
  } catch (...) {
    transfer.exception = std::current_exception();
    return on_failure;
  }
}

size_t on_header(char* data, size_t, size_t count, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  return guarded(transfer, 0, [&]() -> size_t {
    std::string_view line(data, count);
    while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
    HttpReply& reply = transfer.reply;
    if (line.starts_with("HTTP/")) {  // also after an interim reply, such as 100
      long status = 0;
      curl_easy_getinfo(transfer.handle, CURLINFO_RESPONSE_CODE, &status);
      reply.status = static_cast<int>(status);
      reply.headers.clear();
      return count;
    }
    const size_t colon = line.find(':');
    if (colon == line.npos || reply.headers.size() >= kMaxHeaders) return count;
    std::string_view value = line.substr(colon + 1);
    while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
    reply.headers.insert_or_assign(lower(line.substr(0, colon)), std::string(value));
    return count;
  });
}

size_t on_body(char* data, size_t, size_t count, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  return guarded(transfer, 0, [&]() -> size_t {
    transfer.rate->take(count);
    if (transfer.request->sink && transfer.wants_body()) {
      transfer.status = transfer.request->sink(transfer.reply, as_bytes({data, count}));
      return transfer.status ? count : 0;
    }
    std::string& text = transfer.reply.body;
    if (count <= kMaxHttpText - text.size()) {
      text.append(data, count);
      return count;
    }
    transfer.status = Error{Code::kCorrupt, "the server sends more than 8 MiB of text"};
    return 0;
  });
}

size_t on_upload(char* data, size_t size, size_t items, void* user) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  return guarded(transfer, CURL_READFUNC_ABORT, [&]() -> size_t {
    const ByteSource& body = *transfer.request->body;
    const size_t count = std::min<uint64_t>(size * items, body.size_bytes() - transfer.sent_bytes);
    if (count == 0) return 0;
    transfer.rate->take(count);
    transfer.status =
        body.read(transfer.sent_bytes, MutByteSpan(reinterpret_cast<std::byte*>(data), count));
    if (!transfer.status) return CURL_READFUNC_ABORT;
    transfer.sent_bytes += count;
    return count;
  });
}

// A connection that was kept turns out to be closed: libcurl sends the request anew.
int on_rewind(void* user, curl_off_t offset, int origin) {
  if (origin != SEEK_SET || offset < 0) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Transfer*>(user)->sent_bytes = static_cast<uint64_t>(offset);
  return CURL_SEEKFUNC_OK;
}

int on_send(void* user, char*, char*, int, int) {
  ++static_cast<Transfer*>(user)->sends;
  return CURL_PREREQFUNC_OK;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const std::atomic<bool>* stop = static_cast<Transfer*>(user)->request->stop;
  return stop != nullptr && stop->load() ? 1 : 0;
}

HttpFailure explain(CURLcode code, std::string detail) {
  if (detail.empty()) detail = curl_easy_strerror(code);
  while (detail.ends_with('\n')) detail.pop_back();
  HttpFailure failure{{Code::kUnavailable, detail}, /*sent=*/true};
  switch (code) {
    case CURLE_COULDNT_CONNECT:
      failure.sent = false;
      break;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      failure.sent = false;
      failure.lasts = true;
      break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
      failure.sent = false;
      failure.error = {Code::kPermission,
                       "the server's certificate is not trusted (" + detail +
                           "); SSL_CERT_FILE or AWS_CA_BUNDLE names a bundle of authorities"};
      break;
    case CURLE_SSL_CONNECT_ERROR:
      failure.sent = false;
      failure.lasts = true;
      failure.error.message = "no TLS connection (" + detail + "); is it an http:// server?";
      break;
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
      failure.sent = false;
      failure.error.code = Code::kInvalidArgument;
      break;
    case CURLE_ABORTED_BY_CALLBACK:
      failure.error.code = Code::kCancelled;
      break;
    default:
      break;
  }
  return failure;
}

}  // namespace

std::string_view HttpReply::header(std::string_view name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

struct HttpClient::State {
  explicit State(const StoreOptions& given)
      : options(given), rate(given.bytes_per_second), ca_bundle(find_ca_bundle()) {}

  Handle take() {
    std::unique_lock lock(mutex);
    free.wait(lock, [this] { return running < std::max(1U, options.transfers); });
    ++running;
    if (idle.empty()) return Handle(curl_easy_init());
    Handle handle = std::move(idle.back());  // the last one used: its connection is likeliest alive
    idle.pop_back();
    return handle;
  }
  void give_back(Handle handle) {
    const std::lock_guard lock(mutex);
    --running;
    if (handle != nullptr) idle.push_back(std::move(handle));
    free.notify_one();
  }

  const StoreOptions options;
  RateLimit rate;
  const std::string ca_bundle;
  std::mutex mutex;
  std::condition_variable free;
  unsigned running = 0;      // guarded by mutex
  std::vector<Handle> idle;  // guarded by mutex
};

HttpClient::HttpClient(const StoreOptions& options) {
  initialise_once();
  state_ = std::make_unique<State>(options);
}

HttpClient::~HttpClient() = default;

namespace {

long milliseconds(double seconds) {
  return std::lround(std::clamp(seconds, 0.001, 1e6) * 1000);
}

void set_up(CURL* curl, Transfer& transfer, const StoreOptions& options) {
  const HttpRequest& request = *transfer.request;
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "siltstone/" SILTSTONE_VERSION);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(options.connect_seconds));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                   std::lround(std::ceil(options.stall_seconds + request.patience_seconds)));
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, kDownloadBufferBytes);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, on_send);
  curl_easy_setopt(curl, CURLOPT_PREREQDATA, &transfer);
  if (request.stop != nullptr) {
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  }
  if (request.body != nullptr) {
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, kUploadBufferBytes);
    curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE,
                     static_cast<curl_off_t>(request.body->size_bytes()));
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_upload);
    curl_easy_setopt(curl, CURLOPT_READDATA, &transfer);
    curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, on_rewind);
    curl_easy_setopt(curl, CURLOPT_SEEKDATA, &transfer);
  } else if (request.method == "HEAD") {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  }
  if (request.method != "HEAD")
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
}

HeaderList header_list(const HttpFields& fields) {
  HeaderList list;
  const auto append = [&list](const std::string& line) {
    curl_slist* longer = curl_slist_append(list.get(), line.c_str());
    if (longer == nullptr) throw std::bad_alloc();
    (void)list.release();
    list.reset(longer);
  };
  for (const auto& [name, value] : fields) append(name + ": " + value);
  append("Expect:");  // servers that do not know it cost a second
  return list;
}

}  // namespace

Result<HttpReply> HttpClient::send(const HttpRequest& request, HttpFailure* failure) {
  Handle handle = state_->take();
  if (handle == nullptr) {
    state_->give_back(nullptr);
    throw std::bad_alloc();
  }
  CURL* curl = handle.get();
  curl_easy_reset(curl);  // keeps connections, sessions and names
  Transfer transfer{curl, &request, &state_->rate, {}, 0, 0, {}, nullptr};
  std::array<char, CURL_ERROR_SIZE> detail{};
  const HeaderList headers = header_list(request.headers);
  set_up(curl, transfer, state_->options);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail.data());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  if (!state_->ca_bundle.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, state_->ca_bundle.c_str());

  const CURLcode code = curl_easy_perform(curl);
  if (code == CURLE_OK) {
    char* location = nullptr;
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &location);
    if (location != nullptr) transfer.reply.location = location;
    transfer.reply.sent_twice = transfer.sends > 1;
  }
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
  state_->give_back(std::move(handle));
  if (transfer.exception) std::rethrow_exception(transfer.exception);
  if (code == CURLE_OK) return std::move(transfer.reply);
  *failure = transfer.status ? explain(code, detail.data())
                             : HttpFailure{transfer.status.error(), true, false, /*own=*/true};
  return failure->error;
}

}  // namespace siltstone
