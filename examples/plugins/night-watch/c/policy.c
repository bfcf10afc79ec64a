// Restarts a VM a few times, then waits for a person.
//
// Settings, with their defaults: {"max_restarts": 3, "delay_ms": 1000}

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "recovery_policy.h"
#include "roost.h"

struct settings {
  uint64_t max_restarts;
  uint64_t delay_ms;
};

static const struct settings DEFAULTS = {.max_restarts = 3, .delay_ms = 1000};

static bool is(const recovery_policy_string_t *text, const char *other) {
  return text->len == strlen(other) && memcmp(text->ptr, other, text->len) == 0;
}

// A text that the host frees.
static recovery_policy_string_t text(const char *format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  recovery_policy_string_t result;
  recovery_policy_string_dup(&result, buffer);
  return result;
}

// What is left to read of the settings.
struct reader {
  const uint8_t *at;
  const uint8_t *end;
};

static void skip_blanks(struct reader *from) {
  while (from->at < from->end && strchr(" \t\r\n", *from->at)) from->at++;
}

static bool take(struct reader *from, const char *expected) {
  size_t length = strlen(expected);
  skip_blanks(from);
  if ((size_t)(from->end - from->at) < length || memcmp(from->at, expected, length)) return false;
  from->at += length;
  return true;
}

// A number of at most nine digits, which is more than any setting may have.
static bool take_number(struct reader *from, uint64_t *number) {
  skip_blanks(from);
  const uint8_t *first = from->at;
  uint64_t value = 0;
  while (from->at < from->end && *from->at >= '0' && *from->at <= '9' && from->at - first < 9) {
    value = value * 10 + (*from->at++ - '0');
  }
  *number = value;
  return from->at > first;
}

// Reads the one form that settings have: an object of numbers. An error is a text for the operator.
static const char *read_settings(const recovery_policy_string_t *json, struct settings *settings) {
  struct reader from = {json->ptr, json->ptr + json->len};
  *settings = DEFAULTS;
  if (!take(&from, "{")) return "settings are a JSON object";
  if (!take(&from, "}")) {
    do {
      uint64_t *setting = take(&from, "\"max_restarts\"") ? &settings->max_restarts
                          : take(&from, "\"delay_ms\"")   ? &settings->delay_ms
                                                          : NULL;
      if (!setting) return "there are the settings max_restarts and delay_ms";
      if (!take(&from, ":") || !take_number(&from, setting)) return "a setting is a whole number";
    } while (take(&from, ","));
    if (!take(&from, "}")) return "settings end with }";
  }
  skip_blanks(&from);
  if (from.at != from.end) return "there is something after the settings";
  if (settings->max_restarts > 10) return "max_restarts is 0 to 10";
  if (settings->delay_ms < 1 || settings->delay_ms > 60000) return "delay_ms is 1 to 60000";
  return NULL;
}

void exports_roost_policy_plugin_describe(exports_roost_policy_plugin_description_t *ret) {
  ret->name = text("night-watch");
  ret->version = text("0.1.0");
  ret->summary = text("Restarts a VM a few times, then waits for a person");
  ret->attributes.ptr = NULL;
  ret->attributes.len = 0;
}

bool exports_roost_policy_plugin_validate_settings(recovery_policy_string_t *settings,
                                                   recovery_policy_string_t *err) {
  struct settings read;
  const char *error = read_settings(settings, &read);
  if (error) *err = text("%s", error);
  recovery_policy_string_free(settings);
  return error == NULL;
}

void exports_roost_policy_recovery_decide(exports_roost_policy_recovery_facts_t *facts,
                                          exports_roost_policy_recovery_decision_t *ret) {
  struct settings settings;
  // A host passes only settings that were found valid.
  const char *error = read_settings(&facts->context.settings, &settings);
  if (error) roost_fail(error);
  const recovery_policy_string_t *desired = &facts->vm.desired;
  const recovery_policy_string_t *detail = &facts->incident.detail;
  ret->action.tag = EXPORTS_ROOST_POLICY_RECOVERY_ACTION_LEAVE_STOPPED;
  if (is(desired, "stopped") || is(desired, "deleted")) {
    ret->reason = text("its user wants it %.*s", (int)desired->len, desired->ptr);
  } else if (facts->attempts >= settings.max_restarts) {
    ret->reason = text("it needs a person: %.*s", (int)detail->len, detail->ptr);
  } else {
    // The seed keeps VMs that failed together from coming back together.
    uint64_t jitter = facts->context.seed % settings.delay_ms;
    ret->action.tag = EXPORTS_ROOST_POLICY_RECOVERY_ACTION_RESTART_AFTER;
    ret->action.val.restart_after = (settings.delay_ms << facts->attempts) + jitter;
    ret->reason = text("restart %u of %u", (unsigned)facts->attempts + 1,
                       (unsigned)settings.max_restarts);
  }
  exports_roost_policy_recovery_facts_free(facts);
}
