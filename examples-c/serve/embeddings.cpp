// /v1/embeddings, and what the server tells of itself: /v1/models, /health, /metrics.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include "inputs.h"

#include <cstring>

namespace serve {

namespace {

std::string base64(const std::vector<float> &values) {
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::vector<unsigned char> bytes(values.size() * sizeof(float));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += 3) {
        const size_t n = std::min<size_t>(3, bytes.size() - i);
        uint32_t word = 0;
        for (size_t k = 0; k < 3; k++) word = word << 8 | (k < n ? bytes[i + k] : 0u);
        for (size_t k = 0; k < 4; k++) out += k <= n ? DIGITS[word >> (18 - 6 * k) & 63] : '=';
    }
    return out;
}

// One after the other. Where there are too few pages, others end first.
std::vector<float> embed(service &s, const kigo::tokens &ids, pages::holder &holder, const cancellation &request) {
    for (;;) {
        request.check();
        try {
            return s.model.embed(ids);
        } catch (const kigo::error &e) {
            if (e.status() != KIGO_STATUS_CACHE_FULL && e.status() != KIGO_STATUS_OUT_OF_MEMORY) throw fault_of(e, "input");
            if (holder.too_few(request, fault_of(e, "input"))) holder.wait(request);
        }
    }
}

json model_facts(const service &s) {
    return {{"id", s.name()}, {"object", "model"}, {"created", s.created}, {"owned_by", "kigo"},
            {"meta", {{"n_ctx", s.n_ctx}, {"n_vocab", s.facts.n_vocab}, {"n_embd", s.facts.n_embd},
                      {"n_params", s.facts.n_parameters}, {"size", s.facts.file_bytes}}}};
}

} // namespace

void add_embeddings(http_server &http, service &s) {
    add_post(http, s, "/v1/embeddings",
             [&s](const json &body, std::shared_ptr<exchange> request, httplib::Response &response) {
                 const fields given(body);
                 const std::string format = given.text("encoding_format").value_or("float");
                 if (format != "float" && format != "base64")
                     throw invalid("encoding_format", dump(format) + " is not float or base64");
                 given.whole("dimensions", s.facts.n_embd, s.facts.n_embd);
                 const auto inputs = read_inputs(s, given, "input", 2048);
                 const gate::place place(s.entrance, 1, request->stop);
                 pages::holder holder(s.cache);
                 json data = json::array();
                 uint64_t n_tokens = 0;
                 for (const kigo::tokens &ids : inputs) {
                     if (ids.empty()) throw invalid("input", "has no tokens");
                     const std::vector<float> values = embed(s, ids, holder, request->stop);
                     n_tokens += ids.size();
                     const json shown = format == "float" ? json(values) : json(base64(values));
                     data.push_back({{"object", "embedding"}, {"index", data.size()}, {"embedding", shown}});
                 }
                 s.figures.prompt_tokens += n_tokens;
                 answer_json(response, {{"object", "list"},
                                        {"data", data},
                                        {"model", s.name()},
                                        {"usage", {{"prompt_tokens", n_tokens}, {"total_tokens", n_tokens}}}});
             });
}

void add_facts(http_server &http, service &s) {
    http.Get("/v1/models", [&s](const httplib::Request &, httplib::Response &response) {
        answer_json(response, {{"object", "list"}, {"data", json::array({model_facts(s)})}});
    });
    http.Get("/v1/models/(.+)", [&s](const httplib::Request &request, httplib::Response &response) {
        if (request.matches[1].str() == s.name()) return answer_json(response, model_facts(s));
        answer_fault(response, fault(404, "invalid_request_error", "there is no such model", "model", "model_not_found"));
    });
    http.Get("/health", [](const httplib::Request &, httplib::Response &response) {
        answer_json(response, {{"status", "ok"}});
    });
    http.Get("/metrics", [&s, &http](const httplib::Request &, httplib::Response &response) {
        response.set_content(s.figures.text(s, http), "text/plain; version=0.0.4; charset=utf-8");
    });
}

} // namespace serve
