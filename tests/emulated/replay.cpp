// Runs recorded calls (record.py) and compares their outputs bit by bit: the program for the
// sanitizers, which see every array as a heap block of exactly its size.
//
//     replay FILE [SEED ...]    each seed is another schedule of every call
//
// For mutants: ZFCORE_REPLAY=first ends it with the first failure, ZFCORE_OPERATIONS=a,b, runs the calls of these alone.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>

#include "../../bindings/operations.h"
#include "../../csrc/emulation/runtime.h"

namespace {

using namespace zf::bindings;

struct Reader {
    std::ifstream file;

    template <class T>
    T value() {
        T result;
        bytes(&result, sizeof(T));
        return result;
    }

    void bytes(void* target, std::size_t count) {
        if (!file.read(static_cast<char*>(target), std::streamsize(count)))
            throw std::runtime_error("the recording ends in mid-call");
    }

    std::string text() {
        std::string result(std::size_t(value<std::int64_t>()), ' ');
        bytes(result.data(), result.size());
        return result;
    }
};

struct Argument {
    Array array;
    std::vector<char> before, after;
    std::vector<std::int64_t> integers;
    double number = 0;
    int same_as = -1;  // another argument's array

    template <class T>
    T as() const {
        if constexpr (std::is_same_v<T, Array>)
            return array;
        else if constexpr (std::is_same_v<T, double> || std::is_same_v<T, float>)
            return T(number);
        else if constexpr (std::is_integral_v<T>)
            return T(integers.at(0));
        else if constexpr (std::is_same_v<T, Number> || std::is_same_v<T, Counter>) {
            T result;
            if (array.itemsize)
                result.array = array;
            else
                result.value = integers.empty() ? decltype(result.value)(number) : decltype(result.value)(integers[0]);
            return result;
        } else {
            T result{};
            for (std::size_t i = 0; i < result.size(); ++i) result[i] = typename T::value_type(integers.at(i));
            return result;
        }
    }
};

Argument read_argument(Reader& reader) {
    Argument result;
    const char kind = reader.value<char>();
    if (kind == 'n') return result;
    if (kind == 'r') {
        result.same_as = reader.value<char>();
        return result;
    }
    if (kind == 'd') {
        result.number = reader.value<double>();
        return result;
    }
    result.array.kind = reader.value<char>();
    result.array.itemsize = reader.value<char>();
    result.integers.resize(std::size_t(reader.value<char>()));
    for (std::int64_t& i : result.integers) i = reader.value<std::int64_t>();
    if (kind == 'i') {
        result.number = double(result.integers.empty() ? 0 : result.integers[0]);
        return result;
    }
    result.array.shape = result.integers;
    result.array.writable = true;
    result.before.resize(std::size_t(result.array.size() * result.array.itemsize));
    result.after.resize(result.before.size());
    reader.bytes(result.before.data(), result.before.size());
    reader.bytes(result.after.data(), result.after.size());
    return result;
}

using Call = std::function<void(const std::vector<Argument>&)>;

template <class... A, std::size_t... I>
Call wrap(void (*function)(A...), std::index_sequence<I...>) {
    return [function](const std::vector<Argument>& arguments) {
        if (arguments.size() != sizeof...(A)) throw std::runtime_error("a wrong number of arguments");
        function(arguments[I].template as<std::decay_t<A>>()...);
    };
}

// Any NaN equals any other: which of two operands' NaNs survives is up to the compiler.
template <class T>
bool equal(const char* a, const char* b, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; i += sizeof(T)) {
        T x, y;
        std::memcpy(&x, a + i, sizeof(T));
        std::memcpy(&y, b + i, sizeof(T));
        if (std::memcmp(&x, &y, sizeof(T)) && !(x != x && y != y)) return false;
    }
    return true;
}

bool equal(const Argument& argument, const char* now) {
    const std::size_t bytes = argument.after.size();
    if (argument.array.holds<float>()) return equal<float>(now, argument.after.data(), bytes);
    if (argument.array.holds<double>()) return equal<double>(now, argument.after.data(), bytes);
    return !bytes || !std::memcmp(now, argument.after.data(), bytes);
}

}  // namespace

int main(int count, char** words) {
    if (count < 2) return std::fprintf(stderr, "usage: replay FILE [SEED ...]\n"), 2;
    std::map<std::string, Call> calls;
    operations([&]<class... A>(const char* name, void (*function)(A...)) {
        calls[name] = wrap(function, std::index_sequence_for<A...>{});
    });
    std::vector<std::uint64_t> seeds;
    for (int i = 2; i < count; ++i) seeds.push_back(std::stoull(words[i]));
    if (seeds.empty()) seeds.push_back(1);

    Reader reader{std::ifstream(words[1], std::ios::binary)};
    std::map<std::string, int> done;
    int failures = 0;
    const char* wanted = std::getenv("ZFCORE_REPLAY");
    const bool only_first = wanted && !std::strcmp(wanted, "first");
    const char* named = std::getenv("ZFCORE_OPERATIONS");
    const std::string only = named ? named : "";
    const auto chosen = [&](const std::string& name) { return only.empty() || ("," + only).find("," + name + ",") != only.npos; };
    while (reader.file.peek() != std::ifstream::traits_type::eof()) {
        if (only_first && failures) return 1;
        const std::string name = reader.text();
        std::vector<Argument> arguments(std::size_t(reader.value<std::int64_t>()));
        for (Argument& argument : arguments) argument = read_argument(reader);
        if (!chosen(name)) continue;
        for (const std::uint64_t seed : seeds) {
            std::vector<std::unique_ptr<char[]>> memory;
            for (Argument& argument : arguments) {
                if (!argument.array.itemsize || argument.same_as >= 0) continue;
                memory.emplace_back(new char[argument.before.size()]);
                std::copy(argument.before.begin(), argument.before.end(), memory.back().get());
                argument.array.data = memory.back().get();
            }
            for (Argument& argument : arguments)
                if (argument.same_as >= 0) argument.array = arguments[std::size_t(argument.same_as)].array;
            zf::emulation::seed(seed);
            try {
                calls.at(name)(arguments);
            } catch (const std::exception& error) {
                ++failures;
                std::cerr << name << ": " << error.what() << "\n";
                continue;
            }
            for (std::size_t i = 0; i < arguments.size(); ++i)
                if (arguments[i].same_as < 0 && arguments[i].array.itemsize &&
                    !equal(arguments[i], static_cast<char*>(arguments[i].array.data))) {
                    ++failures;
                    std::cerr << name << ": argument " << i << " differs from the recording (seed " << seed << ")\n";
                }
        }
        ++done[name];
    }
    int total = 0;
    for (const auto& [name, times] : done) total += times;
    for (const auto& [name, call] : calls)
        if (chosen(name) && !done.count(name)) {
            ++failures;
            std::cerr << name << ": no call was recorded\n";
        }
    std::cout << total << " calls of " << done.size() << " operations, " << seeds.size() << " schedules each, " << failures
              << " failures\n";
    return failures || !total;
}
