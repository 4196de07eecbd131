// Model folders: which files are weights, which travel along, and what is refused.
#include "tensor/folder.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "siltstone/checkpoint.h"
#include "tensor/shard_index.h"
#include "unit/base/temp_folder.h"
#include "unit/tensor/make_file.h"

namespace siltstone {
namespace {

namespace fs = std::filesystem;
using testing::Test;

class Folder : public Test {
 protected:
  void sparse(const std::string& relative, uint64_t size_bytes) {
    fs::resize_file(folder_.write(relative, ""), size_bytes);
  }

  std::unique_ptr<Checkpoint> open() {
    auto checkpoint = open_checkpoint(folder_.path());
    if (!checkpoint) {
      ADD_FAILURE() << checkpoint.error().message;
      return nullptr;
    }
    return *std::move(checkpoint);
  }

  // The error's message without the path of the folder.
  std::string refusal(Code code) {
    const auto checkpoint = open_checkpoint(folder_.path());
    if (checkpoint) return "accepted";
    EXPECT_EQ(checkpoint.error().code, code) << checkpoint.error().message;
    std::string message = checkpoint.error().message;
    const std::string path = folder_.path().string();
    for (size_t at; (at = message.find(path)) != std::string::npos;) {
      message.replace(at, path.size(), "DIR");
    }
    return message;
  }

  TempFolder folder_;
};

std::vector<std::string> companions(const Checkpoint& checkpoint) {
  std::vector<std::string> paths;
  for (const CompanionFile& file : checkpoint.companions()) paths.push_back(file.path);
  return paths;
}

std::vector<std::string> files(const Checkpoint& checkpoint) {
  std::vector<std::string> paths;
  for (const WeightFile& file : checkpoint.files()) paths.push_back(file.path);
  return paths;
}

std::vector<std::string> tensors(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : checkpoint.tensors()) names.push_back(tensor.name);
  return names;
}

std::vector<std::string> skipped(const Checkpoint& checkpoint) {
  return {checkpoint.skipped().begin(), checkpoint.skipped().end()};
}

using Strings = std::vector<std::string>;

TEST_F(Folder, OneFileWithItsCompanions) {
  folder_.write("model.safetensors", make_file({{"w", "abc"}}));
  folder_.write("config.json", "{}");
  folder_.write("1_Pooling/config.json", "{\"a\":1}");
  folder_.write("LICENSE", "");
  const auto checkpoint = open();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(files(*checkpoint), Strings{"model.safetensors"});
  EXPECT_EQ(companions(*checkpoint), (Strings{"1_Pooling/config.json", "LICENSE", "config.json"}));
  EXPECT_EQ(checkpoint->companions()[0].size_bytes, 7U);
  EXPECT_EQ(*checkpoint->read_companion(0), "{\"a\":1}");
  EXPECT_EQ(*checkpoint->read_companion(1), "");
  EXPECT_EQ(skipped(*checkpoint), Strings{});
  EXPECT_EQ(checkpoint->root(), folder_.path());
}

TEST_F(Folder, SkipsWithTheReason) {
  folder_.write("model.safetensors", make_file({{"w", "abc"}}));
  for (const char* name : {"pytorch_model.bin",
                           "a.PT",
                           "b.pth",
                           "c.ckpt",
                           "d.h5",
                           "e.msgpack",
                           "onnx/model.onnx",
                           "f.gguf",
                           "g.npz",
                           "h.pkl",
                           "i.pickle",
                           "optimizer.safetensors",
                           "optimizer_0",
                           "scheduler.dat",
                           "rng_state_0.x",
                           ".gitattributes",
                           ".git/config",
                           ".siltstone/base/x.safetensors",
                           "sub/.siltstone/x",
                           "1/2/3/4/5/deep",
                           "1/2/3/4/kept",
                           "scheduler/scheduler_config.json",
                           "bad\nname",
                           "bad\xff"}) {
    folder_.write(name, "x");
  }
  sparse("large.json", kMaxCompanionBytes + 1);
  sparse("largest.json", kMaxCompanionBytes);
  const auto checkpoint = open();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(companions(*checkpoint),
            (Strings{"1/2/3/4/kept", "largest.json", "scheduler/scheduler_config.json"}));
  const std::string foreign = " (weights or data in another format)";
  const std::string state = " (training state)";
  const std::string name = " (its name has control characters or is not valid UTF-8)";
  Strings expected = {"pytorch_model.bin" + foreign,
                      "a.PT" + foreign,
                      "b.pth" + foreign,
                      "c.ckpt" + foreign,
                      "d.h5" + foreign,
                      "e.msgpack" + foreign,
                      "onnx/model.onnx" + foreign,
                      "f.gguf" + foreign,
                      "g.npz" + foreign,
                      "h.pkl" + foreign,
                      "i.pickle" + foreign,
                      "optimizer.safetensors" + state,
                      "optimizer_0" + state,
                      "scheduler.dat" + state,
                      "rng_state_0.x" + state,
                      ".gitattributes (hidden)",
                      ".git (hidden)",
                      "1/2/3/4/5 (more than 4 folders deep)",
                      "'bad\\x0aname'" + name,
                      "'bad\\xff'" + name,
                      "large.json (64.00 MiB, companions have at most 64.00 MiB)"};
  std::ranges::sort(expected);
  EXPECT_EQ(skipped(*checkpoint), expected);
}

TEST_F(Folder, FollowsLinksToFilesButNotToFolders) {
  const TempFolder cache;
  fs::create_symlink(cache.write("blobs/1", make_file({{"w", "abc"}})),
                     folder_.path() / "model.safetensors");
  fs::create_symlink(cache.write("blobs/2", "{}"), folder_.path() / "config.json");
  fs::create_directory_symlink(cache.path() / "blobs", folder_.path() / "linked");
  fs::create_symlink(cache.path() / "gone", folder_.path() / "dangling.json");
  ASSERT_EQ(mkfifo((folder_.path() / "pipe").c_str(), 0600), 0);
  const auto checkpoint = open();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(tensors(*checkpoint), Strings{"w"});
  EXPECT_EQ(companions(*checkpoint), Strings{"config.json"});
  EXPECT_EQ(skipped(*checkpoint),
            (Strings{"dangling.json (a symbolic link to nothing)",
                     "linked (a symbolic link to a folder)", "pipe (not a regular file)"}));
}

TEST_F(Folder, WeightsThatLinkToNothingAreRefused) {
  fs::create_symlink(folder_.path() / "gone", folder_.path() / "model.safetensors");
  EXPECT_EQ(refusal(Code::kNotFound),
            "'DIR/model.safetensors' is a symbolic link to a file that does not exist; download "
            "the model again");
}

TEST_F(Folder, TooManyCompanionsAreRefused) {
  folder_.write("model.safetensors", make_file({{"w", "abc"}}));
  for (size_t i = 0; i < kMaxCompanions; ++i) folder_.write("c" + std::to_string(i), "");
  const auto checkpoint = open();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->companions().size(), kMaxCompanions);
  folder_.write("one_more", "");
  EXPECT_EQ(refusal(Code::kUnsupported),
            "'DIR' holds more than 1000 files beside the weights; name a folder that holds only "
            "the model");
}

TEST_F(Folder, WithoutWeightsSaysWhatToDo) {
  EXPECT_EQ(refusal(Code::kNotFound),
            "'DIR' holds no .safetensors file; name a model folder or a .safetensors file");
  folder_.write("snapshots/1/model.safetensors", "");
  EXPECT_EQ(refusal(Code::kNotFound),
            "'DIR' holds no .safetensors file; there is 'snapshots/1/model.safetensors': name its "
            "folder");
  folder_.write("pytorch_model.bin", "");
  EXPECT_EQ(refusal(Code::kUnsupported),
            "'DIR' holds no .safetensors file, only weights in another format, such as "
            "'pytorch_model.bin'; save the model with safe_serialization=True");
}

TEST_F(Folder, SeveralFilesWithoutIndex) {
  folder_.write("b.safetensors", make_file({{"w2", "abc"}, {"w1", "d"}}));
  folder_.write("a.safetensors", make_file({{"w3", "ef"}}));
  const auto checkpoint = open();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(files(*checkpoint), (Strings{"a.safetensors", "b.safetensors"}));
  EXPECT_EQ(tensors(*checkpoint), (Strings{"w1", "w2", "w3"}));
  const auto& b = checkpoint->files()[1];
  ASSERT_EQ(b.entries.size(), 2U);
  EXPECT_EQ(b.entries[0].tensor, 1U);
  EXPECT_EQ(b.entries[1].tensor, 0U);
  EXPECT_EQ(b.entries[1].offset_bytes, b.size_bytes - 1);
  std::string bytes(2, '?');
  ASSERT_TRUE(checkpoint->read(2, 0, std::as_writable_bytes(std::span(bytes))));
  EXPECT_EQ(bytes, "ef");
}

TEST_F(Folder, TensorInTwoFilesIsRefused) {
  folder_.write("a.safetensors", make_file({{"u", "abc"}, {"w", "d"}}));
  folder_.write("b.safetensors", make_file({{"w", "d"}}));
  EXPECT_EQ(refusal(Code::kCorrupt),
            "tensor 'w' stands in both 'a.safetensors' and 'b.safetensors' of 'DIR'; a model has "
            "each tensor once: name one file alone");
}

class Sharded : public Folder {
 protected:
  void SetUp() override {
    folder_.write("m-1.safetensors", make_file({{"a", "1"}, {"b", "2"}}));
    folder_.write("m-2.safetensors", make_file({{"c", "3"}}));
    folder_.write("model.safetensors.index.json", index());
  }
  static std::string index(const std::string& more = "", const std::string& b = "m-1") {
    return R"({"metadata":{"total_size":3,"x":[1,{"y":null}],"t":true},"weight_map":{)"
           R"("a":"m-1.safetensors","b":")" +
           b + R"(.safetensors","c":"m-2.safetensors")" + more + "}}";
  }
  std::string refuse(const std::string& text, Code code = Code::kCorrupt) {
    folder_.write("model.safetensors.index.json", text);
    return refusal(code);
  }
};

constexpr const char* kIndexPath = "'DIR/model.safetensors.index.json': ";

TEST_F(Sharded, TheIndexNamesTheFiles) {
  folder_.write("consolidated.safetensors", "not even read");
  const auto checkpoint = open();
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(files(*checkpoint), (Strings{"m-1.safetensors", "m-2.safetensors"}));
  EXPECT_EQ(tensors(*checkpoint), (Strings{"a", "b", "c"}));
  EXPECT_EQ(companions(*checkpoint), Strings{"model.safetensors.index.json"});
  EXPECT_EQ(skipped(*checkpoint),
            Strings{"consolidated.safetensors (not named by model.safetensors.index.json)"});
}

TEST_F(Sharded, AnIndexOfAnotherNameServes) {
  fs::rename(folder_.path() / "model.safetensors.index.json",
             folder_.path() / "diffusion.safetensors.index.json");
  EXPECT_TRUE(open());
  folder_.write("variant.safetensors.index.json", "{}");
  EXPECT_EQ(refusal(Code::kUnsupported),
            "'DIR' has several indexes, 'diffusion.safetensors.index.json' and "
            "'variant.safetensors.index.json', and no 'model.safetensors.index.json'; leave the "
            "one that counts");
}

TEST_F(Sharded, TheUsualIndexCountsAmongSeveral) {
  folder_.write("a.safetensors.index.json", "{}");
  EXPECT_TRUE(open());
}

TEST_F(Sharded, AWholeModelBesideShardsIsAmbiguous) {
  folder_.write("model.safetensors", make_file({{"a", "9"}}));
  EXPECT_EQ(refusal(Code::kUnsupported),
            "'DIR' has both 'model.safetensors' and 'model.safetensors.index.json', which does "
            "not name it: they are two models; remove the one that is out of date");
}

TEST_F(Sharded, MissingShard) {
  fs::remove(folder_.path() / "m-2.safetensors");
  EXPECT_EQ(refusal(Code::kNotFound),
            "'model.safetensors.index.json' names 'm-2.safetensors', which is not in 'DIR'; "
            "download the model again");
}

TEST_F(Sharded, IndexAndFilesMustAgree) {
  const std::string at = kIndexPath;
  EXPECT_EQ(refuse(index(R"(,"d":"m-2.safetensors")")),
            at + "the index puts tensor 'd' into 'm-2.safetensors', which does not hold it");
  EXPECT_EQ(refuse(index("", "m-2")),
            at + "the index puts tensor 'b' into 'm-2.safetensors', but 'm-1.safetensors' holds "
                 "it");
  folder_.write("m-2.safetensors", make_file({{"c", "3"}, {"extra", "4"}}));
  EXPECT_EQ(refuse(index()),
            at + "'m-2.safetensors' holds tensor 'extra', which the index does not name");
}

TEST_F(Sharded, BadIndexTextIsRefused) {
  const std::string at = kIndexPath;
  EXPECT_EQ(refuse(""), at + "the index is not valid JSON: it ends after 0 bytes, before its last "
                             "value does");
  EXPECT_EQ(refuse("[]"), at + "the index is an array; expected an object");
  EXPECT_EQ(refuse("7"), at + "the index is the number 7; expected an object");
  EXPECT_EQ(refuse("{}"), at + "the index has no 'weight_map'");
  EXPECT_EQ(refuse(R"({"metadata":{"weight_map":{"a":"m-1.safetensors"}}})"),
            at + "the index has no 'weight_map'");
  EXPECT_EQ(refuse(R"({"weight_map":{}})"), at + "the index's 'weight_map' is empty");
  EXPECT_EQ(refuse(R"({"weight_map":["a"]})"),
            at + "the index's 'weight_map' is an array; expected an object");
  EXPECT_EQ(refuse(R"({"weight_map":"a"})"),
            at + "the index's 'weight_map' is the string 'a'; expected an object");
  EXPECT_EQ(refuse(R"({"weight_map":{"a":1}})"),
            at + "the index's entry for tensor 'a' is the number 1; expected a file name");
  EXPECT_EQ(refuse(R"({"weight_map":{"a":{}}})"),
            at + "the index's entry for tensor 'a' is an object; expected a file name");
  EXPECT_EQ(refuse(R"({"weight_map":{"a":"m.safetensors","a":"m.safetensors"}})"),
            at + "the index names tensor 'a' twice");
  EXPECT_EQ(refuse(R"({"weight_map":{"a":"m.safetensors"},"weight_map":{}})"),
            at + "the index has two 'weight_map'");
  EXPECT_EQ(refuse(R"({"weight_map":{"a":"m.safetensors"}} x)"),
            at + "the index is not valid JSON near byte 37");
  EXPECT_EQ(refuse(R"({"x":)" + std::string(100, '[')),
            at + "the index is nested more than 8 levels deep");
  for (const std::string file : {"../m.safetensors", "/m.safetensors", "x/m.safetensors",
                                 "pytorch_model.bin", "..", "m\\n.safetensors"}) {
    const std::string message = refuse(R"({"weight_map":{"a":")" + file + R"("}})");
    EXPECT_TRUE(message.starts_with(at + "the index puts tensor 'a' into '")) << message;
    EXPECT_TRUE(message.ends_with("expected the name of a .safetensors file in the same folder"))
        << message;
  }
}

TEST_F(Sharded, TooLargeIndexIsRefused) {
  sparse("model.safetensors.index.json", kMaxCompanionBytes + 1);
  EXPECT_EQ(refusal(Code::kUnsupported),
            "the index 'DIR/model.safetensors.index.json' has 67108865 bytes, at most 67108864 are "
            "read");
}

}  // namespace
}  // namespace siltstone
